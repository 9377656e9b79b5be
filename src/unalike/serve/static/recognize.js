// The page Recognize: sends pictures, shows the answers that the server renders, and says whether they are right.
import { currentAnswer, moveKeys, showAnswer, startActs } from "./answer_list.js";
import { call, galleryPath, say } from "./api.js";
import { startCamera } from "./camera.js";
import { askClass } from "./class_choice.js";
import { startDropZone } from "./drop_zone.js";
import { giveFeedback, judge } from "./feedback.js";
import { bindKeys } from "./keys.js";
import { keepBatchInAddress, startQueue } from "./picture_queue.js";

const { gallery, batch, first } = document.getElementById("recognize").dataset;

// ---- pictures ----

async function send(file) {
  const form = new FormData();
  form.append("image", file, file.name || "picture");
  const { answers } = await call("POST", galleryPath(gallery, "/identify"), { form, requestId: batch });
  await show(answers[0].id);
  if (isDoubtfulFirst()) sortAnswers();
}

function show(id) {
  return showAnswer(`/recognize/answer?${new URLSearchParams({ gallery, id })}`, id);
}

// ---- how many answers are of each state, and their order ----

const list = document.getElementById("answer-list");
const doubtfulFirst = document.getElementById("doubtful-first");
const count = document.getElementById("count");

function isDoubtfulFirst() {
  return doubtfulFirst.getAttribute("aria-pressed") === "true";
}

function countAnswers() {
  const answers = [...list.querySelectorAll("article")];
  const counts = count.dataset.states.split("|").map((state) => [answers.filter((one) => one.dataset.state === state).length, state]);
  const words = counts.filter(([number]) => number).map(([number, state]) => `${number} ${state}`);
  count.textContent = `${answers.length} picture${answers.length === 1 ? "" : "s"}: ${words.join(", ")}`;
  document.getElementById("answers-count").hidden = !answers.length;
}

/** Doubtful answers first, or all by time, the latest first; the focus stays where it is. */
function sortAnswers() {
  const states = isDoubtfulFirst() ? first.split(" ") : [];
  const rank = ({ dataset }) => (states.includes(dataset.state) ? states.indexOf(dataset.state) : states.length);
  const focused = document.activeElement;
  const time = ({ dataset }) => Date.parse(dataset.time); // in ms; times of one batch may differ by less
  const newer = (one, other) => time(other) - time(one) || (one.dataset.time < other.dataset.time ? 1 : -1);
  list.append(...[...list.children].sort((one, other) => rank(one) - rank(other) || newer(one, other)));
  if (list.contains(focused)) focused.focus({ preventScroll: true });
}

function keepOrderInAddress() {
  const address = new URL(location.href);
  if (isDoubtfulFirst()) address.searchParams.set("order", "doubtful");
  else address.searchParams.delete("order");
  history.replaceState(null, "", address);
}

doubtfulFirst.addEventListener("click", () => {
  doubtfulFirst.setAttribute("aria-pressed", String(!isDoubtfulFirst()));
  keepOrderInAddress();
  sortAnswers();
});
new MutationObserver(countAnswers).observe(list, { childList: true });

const addPictures = startQueue(send, { verb: "is being recognized", onStart: () => {
  keepBatchInAddress({ gallery, batch });
  keepOrderInAddress();
} });
startDropZone(document.getElementById("drop"), addPictures);
const openCamera = startCamera((picture) => addPictures([picture]));

// ---- feedback ----

/** Correct a decision: feedback, and the picture becomes a reference of the right class. */
async function correct(answer, title) {
  const choice = await askClass(gallery, title, answer.dataset.runnerUp);
  if (!choice) return;
  const { id, hasImage } = answer.dataset;
  const withdraw = await giveFeedback(answer, choice.isNew ? "new class" : "wrong", choice.label, show);
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
  await show(id);
}

const acts = {
  confirmed: (answer) => judge(answer, "confirmed", "Noted: right.", show),
  unusable: (answer) => judge(answer, "unusable", "Noted: unusable.", show),
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

const act = startActs(acts);
bindKeys({
  y: () => act("confirmed", currentAnswer()),
  w: () => act("wrong", currentAnswer()),
  n: () => act("new", currentAnswer()),
  u: () => act("unusable", currentAnswer()),
  h: () => act("heat", currentAnswer()),
  o: () => document.getElementById("files").click(),
  c: () => openCamera(),
  ...moveKeys,
});
