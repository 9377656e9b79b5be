// The page Compare: a reference and an image are chosen and compared; their pictures lie over each other or side by side.
import { call, say, sayProblem } from "./api.js";
import { startDropZone } from "./drop_zone.js";
import { fetchFragment } from "./fragments.js";
import { bindKeys } from "./keys.js";
import { RegionEditor } from "./region_editor.js";

const FIELDS = ["reference", "image"];
const HEAT_MAPS = ["heat", "heat_features"];
const form = document.getElementById("compare-form");
const place = document.getElementById("answer");
const busy = document.getElementById("busy");
const files = {};
const editor = new RegionEditor();
let isBusy = false;

// ---- the pair ----

async function take(field, file) {
  files[field] = file;
  const slot = document.getElementById(`slot-${field}`);
  slot.querySelector(".chosen").textContent = file.name || "picture";
  const preview = slot.querySelector(".preview");
  preview.src = URL.createObjectURL(file);
  const isShown = await preview.decode().then(() => true, () => false);
  preview.hidden = !isShown;
  if (field !== "reference" || files.reference !== file) return;
  if (isShown) await editor.showPicture(preview.src, { isFrame: true });
}

/** Files for the first empty places; one alone replaces the image where both are chosen. */
function fill(list) {
  const empty = FIELDS.filter((field) => !files[field]);
  const fields = empty.length ? empty : list.length > 1 ? FIELDS : ["image"];
  fields.slice(0, list.length).forEach((field, number) => take(field, list[number]));
  if (list.length > fields.length) say(`${list.length - fields.length} more left out: a pair is compared.`);
}

for (const field of FIELDS) startDropZone(document.getElementById(`slot-${field}`), ([file]) => take(field, file), { isWholePage: false });
startDropZone(document.getElementById("drop"), fill, { fields: [] });

// ---- the comparison ----

async function compare() {
  if (!files.reference || !files.image) {
    say("Choose a reference and an image first.", { isBad: true });
    return;
  }
  const body = new FormData();
  for (const field of FIELDS) body.append(field, files[field], files[field].name || field);
  for (const option of form.elements) {
    if (!option.name || option.disabled || option.type === "file") continue;
    const value = option.type === "checkbox" ? String(option.checked) : option.value;
    if (value !== option.dataset.default) body.append(option.name, value);
  }
  const boxes = editor.validBoxes();
  if (boxes.length) body.append("ignore_boxes", JSON.stringify(boxes));
  body.append("pictures", "true");
  const { pairs } = await call("POST", "/v1/compare", { form: body });
  const [pair] = pairs;
  place.replaceChildren(await fetchFragment(`/compare/answer?${new URLSearchParams({ id: pair.id })}`));
  const address = new URL(location.href);
  address.search = new URLSearchParams({ decision: pair.id }).toString();
  history.replaceState(null, "", address);
  showPictures(pair.pictures);
  place.querySelector("article").focus({ preventScroll: true });
  place.scrollIntoView({ block: "start" });
}

// A network computes features alone.
const level = document.getElementById("option-level");
const setNetwork = () => {
  document.getElementById("option-network").disabled = level.value === "pixels";
};
if (level) {
  level.addEventListener("change", setNetwork);
  setNetwork(); // a reload may keep what was chosen
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (isBusy) return;
  isBusy = true;
  busy.textContent = "They are compared…";
  try {
    await compare();
  } catch (error) {
    sayProblem(error);
  } finally {
    isBusy = false;
    busy.textContent = "";
  }
});

/** The pictures of a comparison that was made before: asked for again, which records nothing. */
async function restore() {
  const article = place.querySelector("article");
  if (article?.dataset.hasImages !== "yes") return;
  const [pair] = (await call("POST", "/v1/compare", { json: { decision: article.dataset.id, pictures: true } })).pairs;
  showPictures(pair.pictures);
  const [height, width] = article.dataset.frame.split(" ").map(Number);
  await editor.showPicture(addressOf(pair.pictures.frame));
  if (width) editor.frame = { width, height };
  editor.setBoxes(JSON.parse(article.dataset.boxes) ?? []);
}

function addressOf(content) {
  return URL.createObjectURL(new Blob([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], { type: "image/jpeg" }));
}

function showPictures(pictures) {
  for (const field of [...FIELDS, ...HEAT_MAPS]) {
    if (!pictures[field]) continue;
    const address = addressOf(pictures[field]);
    for (const image of place.querySelectorAll(`.of-${field}`)) image.src = address;
  }
  for (const name of HEAT_MAPS) {
    const button = place.querySelector(`[data-act=${name}]`);
    if (button) button.disabled = !pictures[name];
  }
  document.getElementById("no-pictures").hidden = true;
  showSide(false);
  setWipe();
}

// ---- views ----

function showSide(isSide) {
  document.getElementById("overlay").hidden = isSide;
  document.getElementById("side").hidden = !isSide;
  press("side", isSide);
}

function press(name, isPressed) {
  place.querySelector(`[data-act=${name}]`).setAttribute("aria-pressed", String(isPressed));
}

function isPressed(name) {
  return place.querySelector(`[data-act=${name}]`).getAttribute("aria-pressed") === "true";
}

/** Cut the reference off at the slider. */
function setWipe() {
  const slider = document.getElementById("wipe");
  slider.setAttribute("aria-valuetext", `${slider.value} percent`);
  place.querySelector(".layer.of-reference").style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
}

/** Show a heat map over the pictures, or hide it; one at a time. */
function showHeat(name) {
  const isShown = !isPressed(name);
  for (const other of HEAT_MAPS) {
    if (!place.querySelector(`[data-act=${other}]`)) continue;
    press(other, other === name && isShown);
    place.querySelector(`.of-${other}`).hidden = !(other === name && isShown);
  }
  if (isShown) showSide(false);
}

const acts = {
  side: () => showSide(!isPressed("side")),
  frames: () => {
    press("frames", !isPressed("frames"));
    for (const frames of place.querySelectorAll(".boxes")) frames.toggleAttribute("hidden", !isPressed("frames"));
  },
  heat: () => showHeat("heat"),
  heat_features: () => showHeat("heat_features"),
};

function act(name) {
  const button = place.querySelector(`[data-act=${name}]`);
  if (button && !button.disabled) acts[name]();
}

place.addEventListener("input", (event) => {
  if (event.target.id === "wipe") setWipe();
});
place.addEventListener("click", (event) => {
  const name = event.target.closest("[data-act]")?.dataset.act;
  if (name) act(name);
});

// ---- sets of regions ----

const sets = document.getElementById("sets");

async function showSets() {
  sets.replaceChildren(await fetchFragment("/compare/region-sets"));
}

async function keepSet(name, content) {
  const { former } = await call("POST", "/v1/region-sets", { json: { name, ...content } });
  const undo = async () => {
    if (former) await call("POST", "/v1/region-sets", { json: { name, ...former } });
    else await call("DELETE", `/v1/region-sets?${new URLSearchParams({ name })}`);
    await showSets();
  };
  say(`The regions are kept as ${name}.`, { undo });
  await showSets();
}

async function removeSet(name) {
  const { former } = await call("DELETE", `/v1/region-sets?${new URLSearchParams({ name })}`);
  const undo = async () => {
    await call("POST", "/v1/region-sets", { json: { name, ...former } });
    await showSets();
  };
  say(`The regions ${name} are removed.`, { undo });
  await showSets();
}

/** Take the boxes of a set, in the size of the reference. */
function takeSet({ boxes, frame: [height, width] }) {
  if (!editor.frame) editor.frame = { width, height };
  const [x, y] = [editor.frame.width / width, editor.frame.height / height];
  editor.setBoxes(boxes.map(([left, top, right, bottom]) => [
    Math.floor(left * x), Math.floor(top * y), Math.ceil(right * x), Math.ceil(bottom * y),
  ]));
  say(`${boxes.length} region${boxes.length === 1 ? "" : "s"} taken.`);
}

sets.addEventListener("click", async (event) => {
  const name = event.target.closest("[data-act]")?.dataset.act;
  if (!name) return;
  const chosen = document.getElementById("set")?.selectedOptions[0];
  try {
    if (name === "take-set") takeSet(JSON.parse(chosen.dataset.content));
    if (name === "remove-set") await removeSet(chosen.value);
    if (name === "keep-set") {
      const field = document.getElementById("set-name");
      if (!editor.frame) say("Choose the reference first: the regions belong to its size.", { isBad: true });
      else if (!field.value.trim()) field.focus();
      else await keepSet(field.value.trim(), { boxes: editor.validBoxes(), frame: [editor.frame.height, editor.frame.width] });
    }
  } catch (error) {
    sayProblem(error);
  }
});

bindKeys({
  o: () => document.getElementById("file-reference").click(),
  i: () => document.getElementById("file-image").click(),
  Enter: (event) => {
    if (event.target.closest("button, a, summary")) event.target.click();
    else form.requestSubmit();
  },
  s: () => act("side"),
  b: () => act("frames"),
});
restore().catch(sayProblem);
