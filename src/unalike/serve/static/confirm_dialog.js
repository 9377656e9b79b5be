// A dialog that says what cannot be undone, and asks whether it is to be done.
import { Dialog } from "./dialog.js";

const dialog = new Dialog("confirm");
const yes = document.getElementById("confirm-yes");

/**
 * Ask before something is done.
 * @param {{title: string, content: Node, verb: string}} options
 * @returns {Promise<boolean>}
 */
export async function confirmChange({ title, content, verb }) {
  document.getElementById("confirm-text").replaceChildren(content);
  yes.textContent = verb;
  const answer = dialog.ask(title);
  document.getElementById("confirm-no").focus();
  return (await answer) === true;
}

yes?.addEventListener("click", () => dialog.answer(true));
