// A dialog in which one types the name of a class.

const dialog = document.getElementById("name-dialog");
const field = document.getElementById("name-text");
let finish = null;

/**
 * Ask for a name.
 * @param {{title: string, verb: string, value?: string}} options title, name of the button, the name to begin with
 * @returns {Promise<string | null>} null: cancelled
 */
export function askName({ title, verb, value = "" }) {
  document.getElementById("name-title").textContent = title;
  document.getElementById("name-take").textContent = verb;
  field.value = value;
  dialog.showModal();
  field.select();
  return new Promise((resolve) => {
    finish = resolve;
  });
}

function close(name) {
  const resolve = finish;
  finish = null;
  dialog.close();
  resolve?.(name);
}

if (dialog) {
  dialog.addEventListener("close", () => close(null));
  document.getElementById("name-close").addEventListener("click", () => close(null));
  document.getElementById("name-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim()) close(field.value.trim());
  });
}
