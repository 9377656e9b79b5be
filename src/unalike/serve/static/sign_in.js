// Signing in: the key becomes a session's cookie, and is kept nowhere in the browser.
import { call } from "./api.js";

const form = document.getElementById("sign-in");
const problem = document.getElementById("sign-in-problem");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  try {
    await call("POST", "/v1/session", { json: { key: form.elements.key.value } });
    location.assign(form.dataset.target);
  } catch (error) {
    problem.textContent = error.message;
    form.elements.key.select();
  }
});
