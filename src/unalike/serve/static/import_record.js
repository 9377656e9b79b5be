// What an import has added so far, kept by the browser, so that the next page can tell of one that was broken off, and undo it.
import { makeButton, sayProblem } from "./api.js";
import { changer } from "./enrollment.js";

const PREFIX = "unalike-import:"; // and the gallery

function read(gallery) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + gallery));
  } catch {
    return null; // storage is forbidden
  }
}

function write(gallery, record) {
  try {
    if (record === null) localStorage.removeItem(PREFIX + gallery);
    else localStorage.setItem(PREFIX + gallery, JSON.stringify(record));
  } catch {
    // storage is full or forbidden: the import goes on without
  }
}

/**
 * Begin to write down an import, in the place of one before.
 * @param {string} gallery
 * @param {number} total number of its pictures
 * @returns {{add: (ids: number[]) => void, end: () => void}} `add` is called when a picture was answered, `end` when all were
 */
export function startRecord(gallery, total) {
  const record = { total, ids: [] };
  write(gallery, record);
  return {
    add: (ids) => {
      record.ids.push(...ids);
      write(gallery, record);
    },
    end: () => write(gallery, null),
  };
}

/**
 * Show the import of a gallery that was broken off, where there is one, with its undo.
 * @param {string} gallery
 * @param {(work: () => Promise<void>) => void} alone does the undo, unless something else is under way
 * @param {() => Promise<void>} onUndone
 */
export function showBrokenImport(gallery, alone, onUndone = async () => {}) {
  const record = read(gallery);
  if (!record) return;
  const place = document.getElementById("broken-import");
  const { ids, total } = record;
  const text = document.createElement("p");
  text.textContent = `At least ${ids.length} of ${total} pictures were added by an import that was broken off. To go on, choose the same folder or table on the page Import: what is a reference of its class already is not added again.`;
  const buttons = document.createElement("p");
  buttons.className = "buttons";
  const forget = () => {
    write(gallery, null);
    place.hidden = true;
  };
  const takeAway = changer(gallery, ids);
  const undo = async () => {
    try {
      await takeAway();
      forget();
      await onUndone();
    } catch (error) {
      sayProblem(error);
    }
  };
  if (ids.length) buttons.append(makeButton(`Undo: remove these ${ids.length}`, () => alone(undo)));
  buttons.append(makeButton("Keep them", forget));
  place.replaceChildren(text, buttons);
  place.hidden = false;
}
