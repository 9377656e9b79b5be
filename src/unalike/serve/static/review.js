// The page Review: each entry is answered by a key or a button, and the answer can be undone.
import { call, galleryPath, say, sayProblem } from "./api.js";
import { askClass } from "./class_choice.js";
import { fetchFragment } from "./fragments.js";
import { bindKeys } from "./keys.js";

const LOOK_MS = 3000; // while entries are still looked for
const { gallery, kind } = document.getElementById("review").dataset;
const place = document.getElementById("review-place");
let isBusy = false;

function entries() {
  return [...place.querySelectorAll("article")];
}

function current() {
  return document.activeElement.closest("article") ?? entries()[0];
}

function fetchList() {
  return fetchFragment(`/review/entries?${new URLSearchParams({ gallery, ...(kind ? { kind } : {}) })}`);
}

/** Show the list as it is now; the entry that had the focus keeps it, else that at its place has it. */
async function refresh() {
  const list = await fetchList();
  const all = entries();
  const focused = document.activeElement.closest("article");
  const number = focused ? all.indexOf(focused) : -1;
  // What one has chosen among the pictures of an entry stays chosen.
  for (const old of all) {
    const other = list.querySelector(`#${CSS.escape(old.id)}`);
    if (other && other.dataset.decisions === old.dataset.decisions && other.dataset.references === old.dataset.references) other.replaceWith(old);
  }
  place.replaceChildren(list);
  if (number >= 0) focus(document.getElementById(focused.id) ?? entries()[Math.min(number, entries().length - 1)]);
}

function focus(entry) {
  entry?.focus({ preventScroll: true });
  entry?.scrollIntoView({ block: "nearest" });
}

function count(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

/** The ids of decisions that an answer is about: of several pictures the chosen ones. */
function decisionsOf(entry) {
  const boxes = [...entry.querySelectorAll("input[type=checkbox]")];
  if (!boxes.length) return entry.dataset.decisions.split(" ").filter(Boolean);
  return boxes.filter((box) => box.checked).map((box) => box.value);
}

async function answer(entry, action, words, options = {}) {
  const decisions = decisionsOf(entry);
  let references = entry.dataset.references.split(" ").filter(Boolean).map(Number);
  if (entry.dataset.kind === "wrong label") references = references.slice(0, 1);
  if (!decisions.length && !references.length) {
    say("No picture is chosen.", { isBad: true });
    return;
  }
  const json = { kind: entry.dataset.kind, action, ...(decisions.length ? { decisions } : { references }), ...options };
  const { id, references: added } = await call("POST", galleryPath(gallery, "/review/answers"), { json });
  const undo = async () => {
    await call("DELETE", galleryPath(gallery, `/review/answers/${id}`));
    await refresh();
  };
  say(typeof words === "function" ? words(decisions, added) : words, { undo });
  const all = entries();
  const next = all[all.indexOf(entry) + 1] ?? all[all.indexOf(entry) - 1];
  const isWhole = decisions.length === entry.dataset.decisions.split(" ").filter(Boolean).length;
  if (isWhole) {
    entry.remove();
    focus(next);
  }
  await refresh();
}

async function name(entry) {
  const many = decisionsOf(entry).length > 1;
  const choice = await askClass(gallery, many ? "Which class are they?" : "Which class is it?");
  if (!choice) return;
  const words = (decisions, added) =>
    decisions.length
      ? `${count(decisions.length, "picture")}: ${choice.label}. ${count(added.length, "reference")} added.`
      : `The reference is now one of ${choice.label}.`;
  await answer(entry, "labeled", words, { label: choice.label });
}

function remove(entry, number) {
  const references = entry.dataset.references.split(" ").map(Number);
  const id = entry.dataset.kind === "wrong label" ? references[0] : references[number];
  return answer(entry, "removed", `Reference ${id} removed.`, { remove: id });
}

const acts = {
  confirm: (entry) => answer(entry, "confirmed", "Noted: right."),
  name,
  move: (entry) => answer(entry, "labeled", `Moved to ${entry.dataset.suggestion}.`, { label: entry.dataset.suggestion }),
  remove: (entry) => remove(entry, 1),
  older: (entry) => remove(entry, 0),
  unusable: (entry) => answer(entry, "unusable", "Noted: unusable."),
  dismiss: (entry) => answer(entry, "dismissed", "Dismissed: nobody is asked again."),
};

/** Do one thing at a time. */
async function act(verb, entry) {
  if (!entry?.querySelector(`[data-act="${verb}"]`)) return;
  if (isBusy) {
    say("The last answer is still under way.");
    return;
  }
  isBusy = true;
  try {
    await acts[verb](entry);
  } catch (error) {
    sayProblem(error);
    // Somebody else may have answered it: show what there is.
    await refresh().catch(() => {});
  } finally {
    isBusy = false;
  }
}

function move(step) {
  const all = entries();
  const number = all.indexOf(document.activeElement.closest("article"));
  focus(all[number < 0 ? 0 : Math.min(Math.max(number + step, 0), all.length - 1)]);
}

place.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (button) act(button.dataset.act, button.closest("article"));
});

bindKeys({
  y: () => act("confirm", current()),
  w: () => act("name", current()),
  n: () => act("name", current()),
  m: () => act("move", current()),
  r: () => act("remove", current()),
  l: () => act("older", current()),
  u: () => act("unusable", current()),
  d: () => act("dismiss", current()),
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
});

// Entries appear as they are found; what is being answered is left alone.
setInterval(() => {
  const isComplete = document.getElementById("review-list")?.dataset.complete === "yes";
  if (isComplete || isBusy || document.hidden || document.querySelector("dialog[open]")) return;
  refresh().catch(() => {}); // it is tried again
}, LOOK_MS);
