// Keys of a page: one letter each, never while somebody types or a dialog is open.
import { forgetErrors } from "./api.js";

/** Whether a key press belongs to a field, to a dialog, or to the browser. */
export function isTaken(event) {
  const isField = event.target.closest("input:not([type=checkbox], [type=radio], [type=file]), textarea, select, [contenteditable]");
  return event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isField || document.querySelector("dialog[open]");
}

/** Call `bindings[event.key](event)` for keys that are pressed on the page. */
export function bindKeys(bindings) {
  document.addEventListener("keydown", (event) => {
    if (isTaken(event) || !Object.hasOwn(bindings, event.key)) return;
    event.preventDefault();
    if (event.key !== "?") forgetErrors();
    bindings[event.key](event);
  });
}
