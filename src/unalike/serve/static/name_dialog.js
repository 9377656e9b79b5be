// A dialog in which one types a name.
import { Dialog } from "./dialog.js";

const dialog = new Dialog("name-dialog");
const field = document.getElementById("name-text");

/**
 * Ask for a name.
 * @param {{title: string, verb: string, value?: string}} options title, name of the button, the name to begin with
 * @returns {Promise<string | null>} null: cancelled
 */
export function askName({ title, verb, value = "" }) {
  document.getElementById("name-take").textContent = verb;
  field.value = value;
  field.setCustomValidity("");
  const answer = dialog.ask(title);
  field.select();
  return answer;
}

field?.addEventListener("input", () => field.setCustomValidity(""));
document.getElementById("name-form")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = field.value.trim();
  if (name) return dialog.answer(name);
  field.setCustomValidity("Give a name");
  return field.reportValidity();
});
