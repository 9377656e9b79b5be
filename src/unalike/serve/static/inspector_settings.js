// The page of an inspector's settings: its threshold is tried over the scores and set, its ignored regions are drawn and set.
import { call, say, sayProblem } from "./api.js";
import { fetchFragment } from "./fragments.js";
import { RegionEditor } from "./region_editor.js";

const DELAY_MS = 80;
const { inspector } = document.getElementById("settings").dataset;
const path = `/v1/inspectors/${encodeURIComponent(inspector)}`;
const place = document.getElementById("distribution");
const range = document.getElementById("threshold-range");
const number = document.getElementById("threshold-number");

// ---- threshold ----

let timer = null;
let wanted = 0;

/** Show what a threshold would have flagged; without one, the threshold in use. */
async function showThreshold(threshold = null) {
  wanted += 1;
  const own = wanted;
  const query = { inspector, ...(threshold === null ? {} : { threshold }) };
  const part = await fetchFragment(`/inspect/distribution?${new URLSearchParams(query)}`);
  if (own !== wanted) return; // a later one is on its way
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.act : null;
  place.replaceChildren(part);
  if (focused) (place.querySelector(`[data-act=${focused}]:not(:disabled)`) ?? range).focus();
  if (threshold === null) setFields(part.dataset.threshold);
}

function setFields(value) {
  number.value = value && Number(Number(value).toPrecision(6));
  range.value = value || range.max;
}

function tryLater(value) {
  clearTimeout(timer);
  if (!(Number(value) > 0)) return;
  timer = setTimeout(() => showThreshold(value).catch(sayProblem), DELAY_MS);
}

range.addEventListener("input", () => {
  number.value = Number(Number(range.value).toPrecision(6));
  tryLater(range.value);
});
number.addEventListener("input", () => {
  if (Number(number.value) > 0) range.value = number.value;
  tryLater(number.value);
});

async function setThreshold(threshold) {
  const { former } = await call("POST", `${path}/threshold`, { json: { threshold } });
  const undo = async () => {
    await call("POST", `${path}/threshold`, { json: { threshold: former.threshold } });
    await showThreshold();
  };
  say(threshold === null ? "The threshold of the fit is in use." : `The threshold is now ${Number(threshold.toPrecision(4))}.`, { undo });
  await showThreshold();
}

place.addEventListener("click", (event) => {
  const act = event.target.closest("[data-act]")?.dataset.act;
  if (act === "use") setThreshold(Number(place.firstElementChild.dataset.threshold)).catch(sayProblem);
  if (act === "fitted") setThreshold(null).catch(sayProblem);
});

// ---- ignored regions ----

const editor = document.getElementById("region-editor") && new RegionEditor();

async function saveRegions() {
  const boxes = editor.validBoxes();
  const answer = await call("POST", `${path}/ignored-regions`, { json: { boxes } });
  editor.setBoxes(answer.ignore_boxes);
  const undo = async () => {
    const back = await call("POST", `${path}/ignored-regions`, { json: { boxes: answer.former.ignore_boxes } });
    editor.setBoxes(back.ignore_boxes);
  };
  const count = answer.ignore_boxes.length;
  say(count ? `${count} region${count === 1 ? " is" : "s are"} ignored.` : "No region is ignored.", { undo });
}

document.querySelector("[data-act=save-regions]")?.addEventListener("click", () => saveRegions().catch(sayProblem));
document.getElementById("region-file")?.addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  try {
    await editor.showPicture(URL.createObjectURL(file));
  } catch {
    say(`${file.name}: the browser cannot show this picture; type the sides instead.`, { isBad: true });
  }
});
