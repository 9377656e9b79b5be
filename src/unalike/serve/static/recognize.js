// The page Recognize: sends pictures, shows the answers that the server renders, and says whether they are right.
import { call, galleryPath, say, sayProblem } from "./api.js";
import { bindKeys } from "./keys.js";
import { askClass } from "./class_choice.js";
import { startCamera } from "./camera.js";
import { startDropZone } from "./drop_zone.js";
import { fetchFragment } from "./fragments.js";

const AT_ONCE = 3; // requests; more would only wait in the queue of the server
const { gallery, batch } = document.getElementById("recognize").dataset;
const pending = document.getElementById("pending");
const list = document.getElementById("answer-list");
const queue = [];
let running = 0;

// ---- pictures ----

/** Take pictures in; each gets a line until its answer is there. */
function addPictures(pictures) {
  const images = [...pictures].filter((file) => file.size);
  if (!images.length) return;
  keepBatchInAddress();
  for (const file of images) {
    const line = document.createElement("li");
    line.textContent = `${file.name || "picture"}: waits`;
    pending.append(line);
    queue.push({ file, line });
  }
  sendNext();
}

function keepBatchInAddress() {
  const address = new URL(location.href);
  if (address.searchParams.get("batch") === batch) return;
  address.search = new URLSearchParams({ gallery, batch }).toString();
  history.replaceState(null, "", address);
  list.replaceChildren();
  document.querySelector("#answers h2").textContent = "Answers of this visit";
}

function sendNext() {
  while (running < AT_ONCE && queue.length) {
    running += 1;
    send(queue.shift()).finally(() => {
      running -= 1;
      sendNext();
    });
  }
}

async function send({ file, line }) {
  const name = file.name || "picture";
  line.textContent = `${name}: is being recognized`;
  const form = new FormData();
  form.append("image", file, name);
  try {
    const { answers } = await call("POST", galleryPath(gallery, "/identify"), { form, requestId: batch });
    line.remove();
    await showAnswer(answers[0].id);
  } catch (error) {
    line.className = "bad";
    line.textContent = `${name}: ${error.message}`;
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    close.addEventListener("click", () => line.remove());
    line.append(" ", close);
  }
}

/** Fetch an answer as the server renders it; in place of the one that is shown, or before all others. */
async function showAnswer(id) {
  const answer = await fetchFragment(`/recognize/answer?${new URLSearchParams({ gallery, id })}`);
  const old = document.getElementById(`answer-${id}`);
  const hadFocus = old && (old.contains(document.activeElement) || document.activeElement === document.body);
  document.getElementById("no-answers").hidden = true;
  if (old) old.replaceWith(answer);
  else list.prepend(answer);
  if (hadFocus) answer.focus({ preventScroll: true });
}

addEventListener("beforeunload", (event) => {
  if (running || queue.length) event.preventDefault();
});
startDropZone(document.getElementById("drop"), addPictures);
const openCamera = startCamera((picture) => addPictures([picture]));

// ---- feedback ----

/** Say whether a decision was right, with a way back to what was said before. */
async function giveFeedback(answer, verdict, label = null) {
  const { id, verdict: before, label: labelBefore } = answer.dataset;
  const path = `/v1/decisions/${id}/feedback`;
  await call("POST", path, { json: { verdict, label } });
  return async () => {
    const hasLabel = ["wrong", "new class"].includes(before);
    await call("POST", path, { json: { verdict: before || "withdrawn", label: (hasLabel && labelBefore) || null } });
    await showAnswer(id);
  };
}

/** Correct a decision: feedback, and the picture becomes a reference of the right class. */
async function correct(answer, title) {
  const choice = await askClass(gallery, title);
  if (!choice) return;
  const { id, hasImage } = answer.dataset;
  const withdraw = await giveFeedback(answer, choice.isNew ? "new class" : "wrong", choice.label);
  if (hasImage !== "yes") {
    say(`Noted: ${choice.label}. The picture was not kept, so that it is no reference.`, { undo: withdraw });
  } else {
    try {
      const json = { decision: id, label: choice.label };
      const { references } = await call("POST", galleryPath(gallery, "/references"), { json });
      const undo = async () => {
        await call("DELETE", galleryPath(gallery, `/references/${references[0].id}`));
        await withdraw();
      };
      say(`The picture is now a reference of ${choice.label}.`, { undo });
    } catch (error) {
      say(`Noted: ${choice.label}. The picture is no reference: ${error.message}`, { isBad: true, undo: withdraw });
    }
  }
  await showAnswer(id);
}

async function judge(answer, verdict, words) {
  const undo = await giveFeedback(answer, verdict);
  say(words, { undo });
  await showAnswer(answer.dataset.id);
}

const acts = {
  confirmed: (answer) => judge(answer, "confirmed", "Noted: right."),
  unusable: (answer) => judge(answer, "unusable", "Noted: unusable."),
  wrong: (answer) => correct(answer, "Which class is it?"),
  new: (answer) => correct(answer, "What is the new class called?"),
  heat: explain,
};

// ---- where picture and reference agree ----

async function explain(answer) {
  const place = answer.querySelector(".heat");
  if (!place.hidden) {
    place.hidden = true;
    return;
  }
  place.hidden = false;
  place.textContent = "The maps are computed…";
  try {
    const { pairs } = await call("POST", galleryPath(gallery, "/explain"), { json: { decision: answer.dataset.id, pictures: true } });
    const [{ pictures, reference_label: label }] = pairs;
    const texts = {
      query_for: "Picture: green speaks for the match", query_against: "Picture: red speaks against it",
      reference_for: `Reference of ${label}: for`, reference_against: `Reference of ${label}: against`,
    };
    place.replaceChildren(...Object.entries(texts).map(([name, text]) => makeFigure(pictures[name], text)));
  } catch (error) {
    place.textContent = "";
    place.hidden = true;
    throw error;
  }
}

function makeFigure(content, text) {
  const image = new Image(160, 160);
  image.src = URL.createObjectURL(new Blob([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], { type: "image/jpeg" }));
  image.alt = text;
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  const caption = document.createElement("figcaption");
  caption.textContent = text;
  const figure = document.createElement("figure");
  figure.append(image, caption);
  return figure;
}

// ---- buttons and keys ----

const busy = new Set();

/** Do something with an answer, once at a time. */
async function act(name, answer) {
  const isThere = answer?.querySelector(`[data-act="${name}"]`);
  if (!isThere || busy.has(answer.dataset.id)) return;
  busy.add(answer.dataset.id);
  try {
    await acts[name](answer);
  } catch (error) {
    sayProblem(error);
  } finally {
    busy.delete(answer.dataset.id);
  }
}

document.getElementById("answers").addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (button) act(button.dataset.act, button.closest("article"));
});

/** The answer that keys mean: the focused one, else the first. */
function current() {
  return document.activeElement.closest("article") ?? list.firstElementChild;
}

function move(step) {
  const answers = [...list.querySelectorAll("article")];
  const place = answers.indexOf(document.activeElement.closest("article"));
  const next = answers[place < 0 ? 0 : Math.min(Math.max(place + step, 0), answers.length - 1)];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

bindKeys({
  y: () => act("confirmed", current()),
  w: () => act("wrong", current()),
  n: () => act("new", current()),
  u: () => act("unusable", current()),
  h: () => act("heat", current()),
  o: () => document.getElementById("files").click(),
  c: () => openCamera(),
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  ArrowRight: () => move(1),
  ArrowLeft: () => move(-1),
});
