// A dialog that says what cannot be undone, and asks whether it is to be done.

const dialog = document.getElementById("confirm");
let finish = null;

/**
 * Ask before something is done.
 * @param {{title: string, content: Node, verb: string}} options
 * @returns {Promise<boolean>}
 */
export function confirmChange({ title, content, verb }) {
  document.getElementById("confirm-title").textContent = title;
  document.getElementById("confirm-text").replaceChildren(content);
  document.getElementById("confirm-yes").textContent = verb;
  dialog.showModal();
  document.getElementById("confirm-no").focus();
  return new Promise((resolve) => {
    finish = resolve;
  });
}

function close(answer) {
  const resolve = finish;
  finish = null;
  dialog.close();
  resolve?.(answer);
}

if (dialog) {
  dialog.addEventListener("close", () => close(false));
  document.getElementById("confirm-no").addEventListener("click", () => close(false));
  document.getElementById("confirm-yes").addEventListener("click", () => close(true));
}
