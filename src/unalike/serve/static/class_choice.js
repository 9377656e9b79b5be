// A dialog in which one chooses a class by typing a part of its name, or names a new one.
import { Dialog } from "./dialog.js";

const dialog = new Dialog("choose");
const field = document.getElementById("choose-text");
const choices = document.getElementById("choices");
let isAwaited = false; // Enter was pressed before the list of the text was there

/**
 * Ask for a class.
 * @param {string} gallery
 * @param {string} title
 * @param {string} likely the class that is offered first
 * @returns {Promise<{label: string, isNew: boolean} | null>} null: cancelled
 */
export function askClass(gallery, title, likely = "") {
  field.value = "";
  field.setAttribute("hx-vals", JSON.stringify({ gallery, ...(likely ? { first: likely } : {}) }));
  choices.replaceChildren();
  delete choices.dataset.text;
  isAwaited = false;
  const answer = dialog.ask(title);
  field.focus();
  htmx.trigger(field, "refresh");
  return answer;
}

function take(option) {
  if (option?.dataset.label) dialog.answer({ label: option.dataset.label, isNew: option.dataset.kind === "new" });
}

function isUpToDate() {
  return choices.dataset.text === field.value;
}

function options() {
  return [...choices.querySelectorAll("[role=option][data-label]")];
}

function mark(option) {
  for (const other of options()) other.setAttribute("aria-selected", String(other === option));
  if (option) field.setAttribute("aria-activedescendant", option.id);
  else field.removeAttribute("aria-activedescendant");
  option?.scrollIntoView({ block: "nearest" });
}

if (dialog.element) {
  choices.addEventListener("htmx:afterSwap", (event) => {
    choices.dataset.text = new URL(event.detail.xhr.responseURL).searchParams.get("search");
    mark(options()[0]);
    if (isAwaited && isUpToDate()) take(options()[0]);
  });
  choices.addEventListener("click", (event) => take(event.target.closest("[role=option]")));
  field.addEventListener("keydown", (event) => {
    const all = options();
    const place = all.findIndex((option) => option.getAttribute("aria-selected") === "true");
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      mark(all[(place + (event.key === "ArrowDown" ? 1 : all.length - 1)) % all.length]);
    } else if (event.key === "Enter") {
      event.preventDefault();
      // The list may still be that of a shorter text: wait for the one of this text.
      if (isUpToDate()) take(all[place]);
      else isAwaited = true;
    }
  });
}
