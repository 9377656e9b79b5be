// The page of one class: its references are selected, moved and removed, pictures are added, the class is renamed, merged and deleted.
// Every change has its undo in its message.
import { ApiError, call, galleryPath, say, sayProblem } from "./api.js";
import { askClass } from "./class_choice.js";
import { confirmChange } from "./confirm_dialog.js";
import { handOver } from "./deleted_class.js";
import { startDropZone } from "./drop_zone.js";
import { changer, enrollPictures, keptPicture, listReferences, restorer } from "./enrollment.js";
import { fetchFragment } from "./fragments.js";
import { bindKeys } from "./keys.js";
import { askName } from "./name_dialog.js";
import { Selection } from "./selection.js";

const page = document.getElementById("class-page");
const drop = document.getElementById("drop");
const mostPictures = Number(page.dataset.maxFiles);
const { gallery } = state();

/** What the page shows: data of the part that the server rendered last. */
function state() {
  return document.getElementById("class").dataset;
}

const selection = new Selection(page, "#references", (selected) => {
  const words = document.getElementById("selected");
  if (!words) return;
  words.textContent = selected.length ? `${selected.length} selected` : "None selected";
  for (const name of ["move", "remove"]) page.querySelector(`[data-act=${name}]`).disabled = !selected.length;
});

/** Whether the page is that of a class that its first picture makes. */
function isNew() {
  return state().new === "yes";
}

/** Show a class as it is now, under its address; the same page of it where it is the same class. */
async function show(label, mayMake = false) {
  const isSame = label === state().label;
  const after = isSame ? state().after : "-1";
  const query = { gallery, label, ...(after === "-1" ? {} : { after }), ...(mayMake ? { new: "true" } : {}) };
  const part = await fetchFragment(`/classes/references?${new URLSearchParams(query)}`);
  const hadFocus = page.contains(document.activeElement) || document.activeElement === document.body;
  page.replaceChildren(part);
  const exists = state().total !== "0";
  if (drop) drop.hidden = !exists && !isNew();
  if (exists) delete query.new;
  const address = new URL(location.href);
  address.pathname = "/classes/view";
  address.search = new URLSearchParams(query).toString();
  history.replaceState(null, "", address);
  document.title = `${document.getElementById("class-title").textContent} · unalike`;
  selection.reset();
  if (hadFocus) (page.querySelector("[role=option]") ?? document.getElementById("class-title")).focus({ preventScroll: isSame });
}

function count(number, word = "reference") {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

function paragraph(text) {
  const element = document.createElement("p");
  element.textContent = text;
  return element;
}

// ---- references ----

async function move() {
  const selected = selection.selected();
  if (!selected.length) return;
  const { label } = state();
  const ids = selected.map((option) => Number(option.dataset.id));
  const choice = await askClass(gallery, `Move ${count(ids.length)} to which class?`);
  if (!choice || choice.label === label) return;
  const moved = await changer(gallery, ids, choice.label)();
  const back = changer(gallery, moved.map(({ id }) => id), label);
  const undo = async () => {
    await back();
    await show(label);
  };
  say(`${count(moved.length)} moved to ${choice.label}.`, { undo });
  await show(label);
}

/** Remove references; what cannot be brought back is said before. */
async function remove() {
  const selected = selection.selected();
  if (!selected.length) return;
  const { label } = state();
  const kept = selected.filter(({ dataset }) => dataset.sha)
    .map(({ dataset }) => ({ hash: dataset.sha, attributes: JSON.parse(dataset.attributes) }));
  const lost = selected.length - kept.length;
  if (lost) {
    const text = `No picture was kept of ${count(lost)}: undo cannot bring ${lost === 1 ? "it" : "them"} back.`;
    if (!(await confirmChange({ title: `Remove ${count(selected.length)}?`, content: paragraph(text), verb: "Remove" }))) return;
  }
  await changer(gallery, selected.map((option) => Number(option.dataset.id)))();
  sayRemoved(`${count(selected.length)} removed`, label, kept, lost);
  await show(label);
}

function sayRemoved(text, label, kept, lost) {
  const restore = restorer(gallery, label, kept, mostPictures);
  const undo = async () => {
    await restore();
    await show(label);
  };
  const note = lost ? `; ${count(lost)} cannot be brought back` : "";
  say(`${text}${note}.`, kept.length ? { undo } : {});
}

async function add(files) {
  const { label } = state();
  const mayMake = isNew();
  if (!mayMake && state().total === "0") return sayGone(label);
  const pictures = [...files].map((file) => ({ file, label, name: file.name || "picture" }));
  if (!pictures.length) return;
  const { ids, known, refused } = await enrollPictures(gallery, pictures, document.getElementById("enrolling"), { mustExist: !mayMake });
  const takeAway = changer(gallery, ids);
  const undo = async () => {
    await takeAway();
    await show(label, mayMake);
  };
  const words = `${known ? `, ${known} already there` : ""}${refused.length ? `, ${count(refused.length, "picture")} refused` : ""}`;
  say(`${count(ids.length)} added${words}.`, { isBad: !ids.length && !known, ...(ids.length ? { undo } : {}) });
  await show(label, mayMake);
  if (state().total === "0" && !mayMake) sayGone(label);
}

// ---- the class ----

async function rename() {
  const { label } = state();
  const name = await askName({ title: "What is the class to be called?", verb: "Rename", value: label });
  if (!name || name === label) return;
  const answer = await call("POST", galleryPath(gallery, "/classes/rename"), { json: { label, new: name } });
  const undo = async () => {
    await call("POST", galleryPath(gallery, "/classes/rename"), { json: { label: answer.label, new: label } });
    await show(label);
  };
  say(`The class ${label} is now called ${answer.label}.`, { undo });
  await show(answer.label);
}

async function merge() {
  const { label } = state();
  const choice = await askClass(gallery, "Merge into which class?");
  if (!choice || choice.label === label) return;
  const ids = (await listReferences(gallery, label)).map(({ id }) => id);
  const answer = await call("POST", galleryPath(gallery, "/classes/merge"), { json: { labels: [label], into: choice.label } });
  const back = changer(gallery, ids, label);
  const undo = async () => {
    await back();
    await show(label);
  };
  say(`${count(ids.length)} of ${label} now ${ids.length === 1 ? "belongs" : "belong"} to ${answer.label}.`, { undo });
  await show(answer.label);
}

async function deleteClass() {
  const { label } = state();
  const content = await fetchFragment(`/classes/deletion?${new URLSearchParams({ gallery, label })}`);
  if (!(await confirmChange({ title: "Delete the class?", content, verb: "Delete" }))) return;
  const references = await listReferences(gallery, label);
  await call("DELETE", galleryPath(gallery, `/classes?${new URLSearchParams({ label })}`));
  const kept = references.map(keptPicture).filter(Boolean);
  const lost = references.length - kept.length;
  const text = `The class ${label} is deleted, ${count(references.length)} removed`;
  const note = lost ? `; ${count(lost)} cannot be brought back` : "";
  if (handOver({ gallery, label, kept, most: mostPictures, text: `${text}${note}.` })) {
    location.assign(`/classes?${new URLSearchParams({ gallery })}`);
    return;
  }
  sayRemoved(text, label, kept, lost);
  await show(label);
}

/** Say that the class of this page is gone. */
function sayGone(label) {
  say(`There is no class ${label} any more: it was renamed, merged or deleted. See all classes for what it is called now.`, { isBad: true });
}

/** Show how well the class is separated, or hide it again. */
async function showSeparation() {
  const place = document.getElementById("separation");
  const button = page.querySelector("[data-act=separation]");
  place.hidden = !place.hidden;
  button.setAttribute("aria-expanded", String(!place.hidden));
  if (place.hidden) return;
  place.textContent = "It is measured…";
  try {
    place.replaceChildren(await fetchFragment(`/classes/separation?${new URLSearchParams({ gallery, label: state().label })}`));
  } catch (error) {
    place.hidden = true;
    button.setAttribute("aria-expanded", "false");
    throw error;
  }
}

// ---- buttons, keys, pictures ----

const acts = { all: async () => selection.toggleAll(), move, remove, rename, merge, delete: deleteClass, separation: showSeparation };
let isBusy = false;

/** Do one thing at a time. */
async function alone(work) {
  if (isBusy) {
    say("Something is still under way: wait for its message.");
    return;
  }
  isBusy = true;
  try {
    await work();
  } catch (error) {
    const { label } = state();
    if (!(error instanceof ApiError && error.problem.type?.endsWith("no-class"))) return sayProblem(error);
    await show(label).then(() => (state().total === "0" ? sayGone(label) : sayProblem(error)), sayProblem);
  } finally {
    isBusy = false;
  }
}

function act(name) {
  const button = page.querySelector(`[data-act=${name}]`);
  if (button && !button.disabled) alone(acts[name]);
}

page.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (button && event.detail < 2) act(button.dataset.act); // a double click is one
});

const files = document.getElementById("files");
bindKeys({
  a: () => act("all"),
  m: () => act("move"),
  Delete: () => act("remove"),
  e: () => act("rename"),
  g: () => act("merge"),
  s: () => act("separation"),
  o: () => drop && !drop.hidden && files.click(),
});

if (files) startDropZone(drop, (pictures) => alone(() => add(pictures)));
