// A class that was deleted on its page: the list of classes, to which one comes back, says so and undoes it.
import { say } from "./api.js";
import { restorer } from "./enrollment.js";

const KEY = "unalike-deleted-class";

/**
 * Give what was deleted to the next page.
 * @param {{gallery: string, label: string, kept: Object[], most: number, text: string}} removal `kept`: what `keptPicture` gives;
 *   `most`: pictures of a request
 * @returns {boolean} whether the browser keeps it
 */
export function handOver(removal) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(removal));
    return true;
  } catch {
    return false; // storage is full or forbidden
  }
}

/** Say what the page before deleted, with its undo. */
export function sayDeleted(onUndone) {
  let content = null;
  try {
    content = sessionStorage.getItem(KEY);
    sessionStorage.removeItem(KEY);
  } catch {
    return; // storage is forbidden
  }
  if (!content) return;
  const { gallery, label, kept, most, text } = JSON.parse(content);
  const restore = restorer(gallery, label, kept, most);
  const undo = async () => {
    await restore();
    await onUndone();
  };
  say(text, kept.length ? { undo } : {});
}
