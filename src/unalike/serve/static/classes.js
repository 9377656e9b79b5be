// The page Classes: the grid, and its search.
import { call, galleryPath, say, sayProblem } from "./api.js";
import { sayDeleted } from "./deleted_class.js";
import { fetchFragment } from "./fragments.js";
import { showBrokenImport } from "./import_record.js";
import { bindKeys } from "./keys.js";
import { askName } from "./name_dialog.js";
import { VirtualGrid } from "./virtual_grid.js";

const DELAY_MS = 150;
const { gallery, pageSize } = document.getElementById("classes").dataset;
const field = document.getElementById("search");
let shown = field.value; // the search that the grid shows

function fetchPart(search, offset) {
  return fetchFragment(`/classes/cells?${new URLSearchParams({ gallery, search, offset })}`);
}

const grid = new VirtualGrid(document.querySelector("#grid .cells"), {
  partSize: Number(pageSize),
  rowHeight: 96,
  minWidth: 270,
  gap: 12,
  fetchPart: (offset) => fetchPart(shown, offset),
  onPart: ({ dataset: { total, classes, references } }) => {
    const text = `${total} of ${classes} classes, ${references} references in all`;
    const count = document.getElementById("count");
    if (count.textContent !== text) count.textContent = text; // a screen reader reads what is written again
    document.getElementById("no-classes").hidden = total !== "0" || !shown;
  },
  onError: sayProblem,
});

// ---- search ----

let timer = null;

async function search() {
  clearTimeout(timer);
  const text = field.value;
  if (text === shown) return;
  try {
    const part = await fetchPart(text, 0);
    if (text !== field.value) return;
    shown = text;
    const address = new URL(location.href);
    address.search = new URLSearchParams({ gallery, ...(text ? { search: text } : {}) }).toString();
    history.replaceState(null, "", address);
    scrollTo(0, 0);
    grid.restart(part);
  } catch (error) {
    sayProblem(error);
  }
}

field.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, DELAY_MS);
});
document.getElementById("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
field.addEventListener("keydown", (event) => {
  if (event.key !== "ArrowDown" || !grid.total) return;
  event.preventDefault();
  grid.focus(0);
});

// ---- the threshold below which a picture is unknown ----

async function showCalibration() {
  const part = await fetchFragment(`/classes/calibration?${new URLSearchParams({ gallery })}`);
  document.getElementById("calibration").replaceWith(part);
}

document.getElementById("classes").addEventListener("click", async ({ target }) => {
  if (target.id !== "calibrate" || target.disabled) return;
  target.disabled = true;
  try {
    await call("POST", galleryPath(gallery, "/calibration"), { json: {} });
    await showCalibration();
    const undo = async () => {
      await call("POST", galleryPath(gallery, "/calibration/undo"), { json: {} });
      await showCalibration();
    };
    say("The threshold is set from the references as they are now.", { undo });
    document.getElementById("calibrate").focus();
  } catch (error) {
    target.disabled = false;
    sayProblem(error);
  }
});

// ---- a new class ----

async function nameClass() {
  const label = await askName({ title: "A new class", verb: "Go on to its pictures" });
  if (label) location.assign(`/classes/view?${new URLSearchParams({ gallery, label, new: "true" })}`);
}

document.getElementById("new-class")?.addEventListener("click", nameClass);
const showFirst = async () => grid.restart(await fetchPart(shown, 0));
sayDeleted(showFirst);
if (document.getElementById("broken-import")) showBrokenImport(gallery, (work) => work(), showFirst);

/** Other pages lead here to name a class. */
function followLink() {
  if (location.hash !== "#new-class" || !document.getElementById("new-class")) return;
  history.replaceState(null, "", location.pathname + location.search);
  nameClass();
}

addEventListener("hashchange", followLink);
followLink();
bindKeys({
  "/": () => field.focus(),
  n: () => document.getElementById("new-class") && nameClass(),
  ArrowDown: () => grid.total && grid.focus(grid.current),
  ArrowUp: () => grid.total && grid.focus(grid.current),
});
