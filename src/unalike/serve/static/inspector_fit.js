// The page on which an inspector is fitted: good pictures are chosen and sent, then the service fits, and the page shows how far it is.
import { call, say, sayProblem } from "./api.js";
import { confirmChange } from "./confirm_dialog.js";
import { startDropZone } from "./drop_zone.js";
import { fetchFragment } from "./fragments.js";
import { sendAll } from "./sending.js";

const POLL_MS = 700;
const page = document.getElementById("fit");
const known = new Set(page.dataset.suffixes.split(" "));
const mostImages = Number(page.dataset.maxImages);
const form = document.getElementById("fit-form");
const place = document.getElementById("fits");
let chosen = [];
let isBusy = false;

// ---- pictures ----

function isImage(name) {
  return known.has(name.slice(name.lastIndexOf(".")).toLowerCase());
}

function sayChosen() {
  document.getElementById("chosen").textContent = chosen.length ? `${chosen.length} picture${chosen.length === 1 ? "" : "s"} chosen` : "None chosen";
  document.getElementById("forget").hidden = !chosen.length;
}

startDropZone(document.getElementById("drop"), (files) => {
  const images = files.filter((file) => file.size && (isImage(file.name) || file.type.startsWith("image/")));
  const others = files.length - images.length;
  chosen.push(...images);
  if (others) say(`${others} file${others === 1 ? " is no picture" : "s are no pictures"}: left out.`);
  sayChosen();
});
document.getElementById("forget").addEventListener("click", () => {
  chosen = [];
  sayChosen();
  document.getElementById("files").focus();
});

// ---- pictures that the service has: answers that people called good ----

const source = document.getElementById("source");
let asked = 0;

/** The beginning of a day as this browser counts days; of the day after it with `days` 1. */
function startOfDay(id, days = 0) {
  const [year, month, day] = document.getElementById(id).value.split("-").map(Number);
  return year ? new Date(year, month - 1, day + days).toISOString() : null;
}

/** The answers that are chosen, as the API names them; null where none are. */
function readSource() {
  if (!source?.value) return null;
  const times = Object.entries({ since: startOfDay("since"), until: startOfDay("until", 1) });
  return { inspector: source.value, ...Object.fromEntries(times.filter(([, time]) => time)) };
}

async function countSource() {
  const decisions = readSource();
  const place = document.getElementById("source-count");
  document.getElementById("source-times").hidden = !decisions;
  asked += 1;
  if (!decisions) return;
  const mine = asked;
  const { inspector, ...times } = decisions;
  const { images, not_kept: notKept } = await call("GET", `/v1/inspectors/${encodeURIComponent(inspector)}/good-images?${new URLSearchParams(times)}`);
  if (mine !== asked) return; // something else was chosen meanwhile
  const lost = notKept ? `; ${notKept} more are no longer kept` : "";
  place.textContent = `${images} picture${images === 1 ? "" : "s"}${lost}`;
}

if (source) {
  for (const id of ["source", "since", "until"]) {
    document.getElementById(id).addEventListener("change", () => countSource().catch(sayProblem));
  }
  countSource().catch(sayProblem); // a reload may keep what was chosen
}

// ---- fit ----

async function fit() {
  const name = document.getElementById("fit-name").value.trim();
  const decisions = readSource();
  if (chosen.length < 2 && !decisions) throw new Error("Choose good pictures first, two at least.");
  if (chosen.length > mostImages) throw new Error(`${chosen.length} pictures are chosen: at most ${mostImages}.`);
  const pictures = chosen.map((file) => ({ file, name: file.webkitRelativePath || file.name || "picture" }));
  const { results, refused } = await sendAll(pictures, document.getElementById("enrolling"), async (picture) => {
    const body = new FormData();
    body.append("image", picture.file, picture.name);
    const { images } = await call("POST", "/v1/images", { form: body });
    return { sha256: images[0].sha256, name: picture.name };
  });
  const task = await call("POST", "/v1/fits", {
    json: {
      name, images: results, ...(decisions && { decisions }), rate: Number(document.getElementById("fit-rate").value) / 100, light: document.getElementById("fit-light").value,
      fit: document.getElementById("fit-fit").value, network: document.getElementById("fit-network").value,
    },
  });
  const words = refused.length ? `, without ${refused.length} that were refused` : "";
  say(`${name} is being fitted to ${task.options.images} pictures${words}.`);
  await showFits();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (isBusy) return;
  isBusy = true;
  try {
    await fit();
  } catch (error) {
    if (error.constructor === Error) say(error.message, { isBad: true });
    else sayProblem(error);
  } finally {
    isBusy = false;
  }
});

// ---- fits ----

let timer = null;

/** Show what is being fitted, again and again while something is. */
async function showFits() {
  clearTimeout(timer);
  const part = await fetchFragment("/inspect/fits");
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  place.replaceChildren(part);
  if (focused) place.querySelector(`[data-act="${focused.dataset.act}"][data-id="${focused.dataset.id}"]`)?.focus();
  keepLooking();
}

function keepLooking() {
  if (place.firstElementChild?.dataset.busy !== "yes") return;
  timer = setTimeout(() => showFits().catch(keepLooking), POLL_MS);
}

async function remove(name) {
  const content = document.createElement("p");
  content.textContent = `${name} is no longer served. Undo brings it back.`;
  if (!(await confirmChange({ title: "Remove the inspector?", content, verb: "Remove" }))) return;
  const path = `/v1/inspectors/${encodeURIComponent(name)}`;
  await call("DELETE", path);
  const undo = async () => {
    await call("POST", `${path}/restore`);
    await showFits();
  };
  say(`${name} is removed.`, { undo });
  await showFits();
}

place.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  try {
    if (button.dataset.act === "cancel") {
      await call("POST", `/v1/tasks/${encodeURIComponent(button.dataset.id)}/cancel`);
      say("The fit is canceled.");
      await showFits();
    } else {
      await remove(button.dataset.name);
    }
  } catch (error) {
    sayProblem(error);
  }
});
keepLooking();
