// What every page does: the list of keys, undo, sign-out, messages of htmx.
import { call, say, sayProblem, signIn, undoLast } from "./api.js";
import { bindKeys } from "./keys.js";

const sheet = document.getElementById("keys");
bindKeys({ "?": () => sheet.showModal(), z: undoLast });
document.getElementById("show-keys").addEventListener("click", () => sheet.showModal());

document.getElementById("sign-out")?.addEventListener("click", async () => {
  try {
    await call("DELETE", "/v1/session");
    location.assign("/sign-in");
  } catch (error) {
    sayProblem(error);
  }
});

// A dialog closes by a click beside it.
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && event.detail) dialog.close();
  });
}

document.body.addEventListener("htmx:responseError", (event) => {
  const { status, responseText } = event.detail.xhr;
  if (status === 401) return signIn();
  let detail = `the service answered ${status}`;
  try {
    detail = JSON.parse(responseText).detail;
  } catch {
    // an answer of something between, such as a proxy
  }
  return say(detail, { isBad: true });
});
document.body.addEventListener("htmx:sendError", () =>
  say("the service cannot be reached; look whether it runs, and try again", { isBad: true }),
);
