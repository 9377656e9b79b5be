// The page Train: data is checked, a training is started and followed; candidates are compared, promoted and taken back.
import { ApiError, call, galleryPath, say, sayProblem } from "./api.js";
import { confirmChange } from "./confirm_dialog.js";
import { fetchFragment } from "./fragments.js";
import { bindKeys } from "./keys.js";
import { beginShadow, watchShadow } from "./shadow.js";

const POLL_MS = 1500;
const { gallery } = document.getElementById("train").dataset;
const place = document.getElementById("train-state");
const form = document.getElementById("training-form");
let timer = 0;
let upload = null;

// ---- the state ----

/** Show tasks and candidates as they are now; what is open stays open, and the focus stays where it is. */
async function refresh() {
  clearTimeout(timer);
  try {
    const part = await fetchFragment(`/train/state?${new URLSearchParams({ gallery })}`);
    const before = document.getElementById("state");
    for (const details of before.querySelectorAll("details[open]")) part.querySelector(`#${CSS.escape(details.id)}`)?.setAttribute("open", "");
    if (part.outerHTML !== before.outerHTML) {
      const focused = before.contains(document.activeElement) ? document.activeElement.id : "";
      place.replaceChildren(part);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
  }
  follow();
}

/** Look again while something runs. */
function follow() {
  clearTimeout(timer);
  if (document.getElementById("state").dataset.busy === "yes") timer = setTimeout(refresh, POLL_MS);
}

/** Begin a task, say so, and say how it ended. */
async function begin(path, json, words) {
  await attend(await call("POST", path, { json }), words);
}

/** Say that a task began, and how it ended. */
async function attend(task, words) {
  say(`${words} began.`);
  await refresh();
  await ending(task.id, words);
}

async function ending(id, words) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    const task = await call("GET", `/v1/tasks/${encodeURIComponent(id)}`);
    if (task.state === "waiting" || task.state === "running") continue;
    await refresh();
    if (task.state === "done") say(`${words} is done.`);
    else if (task.state === "failed") say(`${words} failed: ${task.error}`, { isBad: true, isLasting: true });
    else say(`${words} was canceled.`);
    return;
  }
}

// ---- a new training ----

/** The data that is chosen; a chosen archive is uploaded once. */
async function data() {
  const file = document.getElementById("archive").files[0];
  if (file && upload?.file !== file) {
    const response = await call("POST", "/v1/training-data", { form: file });
    upload = { file, id: response.upload };
  }
  const folder = document.getElementById("folder")?.value ?? "";
  return {
    gallery,
    with_service: document.getElementById("with-service").checked,
    ...(folder ? { folder } : {}),
    ...(file ? { upload: upload.id } : {}),
  };
}

async function check() {
  const target = document.getElementById("checks");
  target.textContent = "The images are being checked.";
  try {
    target.replaceChildren(await fetchFragment(`/train/checks?${new URLSearchParams(await data())}`));
  } catch (error) {
    target.replaceChildren();
    sayProblem(error);
  }
}

let isStarting = false; // the second click of a double click begins no second training

async function start() {
  if (isStarting || !form.reportValidity()) return;
  isStarting = true;
  let task;
  try {
    const name = document.getElementById("name").value.trim();
    const json = {
      ...(await data()),
      minutes: Number(document.getElementById("minutes").value),
      goal: document.getElementById("goal").value,
      ...(name ? { name } : {}),
    };
    task = await call("POST", "/v1/trainings", { json });
  } finally {
    isStarting = false;
  }
  await attend(task, "The training");
}

// ---- candidates ----

const override = document.getElementById("override");

/** Ask why a candidate is promoted all the same; null where it is not. */
function askReason(verdict) {
  document.getElementById("override-text").textContent = verdict;
  const reason = document.getElementById("reason");
  reason.value = "";
  override.showModal();
  reason.focus();
  return new Promise((resolve) => {
    const yes = document.getElementById("override-yes");
    const close = (answer) => {
      yes.onclick = null;
      override.onclose = null;
      override.close();
      resolve(answer);
    };
    yes.onclick = () => {
      if (reason.reportValidity()) close(reason.value);
    };
    override.onclose = () => close(null);
  });
}

/** Ask before the model in service is replaced. */
async function promote(id) {
  const text = document.createElement("p");
  text.textContent = "The gallery is converted to it, and its threshold is set anew where it had one: look at it on the page Classes afterwards. The former model can be taken back.";
  if (!(await confirmChange({ title: "Promote the candidate?", content: text, verb: "Promote" }))) return;
  await begin(`/v1/candidates/${encodeURIComponent(id)}/promotion`, {}, "The promotion");
}

const acts = {
  compare: (id) => begin(`/v1/candidates/${encodeURIComponent(id)}/comparison`, {}, "The comparison"),
  promote,
  override: async (id, article) => {
    const reason = await askReason(article.querySelector(".verdict").textContent);
    if (reason === null) return;
    await begin(`/v1/candidates/${encodeURIComponent(id)}/promotion`, { override: true, reason }, "The promotion");
  },
  "roll-back": async () => {
    const text = document.createElement("p");
    text.textContent = "The former model comes back into service. References that were enrolled, moved or removed since stay so.";
    if (!(await confirmChange({ title: "Roll back to the former model?", content: text, verb: "Roll back" }))) return;
    await begin(galleryPath(gallery, "/rollback"), {}, "The return to the former model");
  },
  shadow: async (id, article) => {
    if (await beginShadow(gallery, id, article.querySelector("h3").textContent)) await refresh();
  },
  cancel: async (id) => {
    await call("POST", `/v1/tasks/${encodeURIComponent(id)}/cancel`, { json: {} });
    say("Canceled.");
    await refresh();
  },
};

const BEGIN = new Set(["compare", "promote"]);

place.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button || button.disabled || event.detail > 1) return; // a double click is one
  const article = button.closest("article");
  // What begins a task stays so while it is sent and followed; the state that is fetched then has a button of its own.
  button.disabled = BEGIN.has(button.dataset.act);
  try {
    await acts[button.dataset.act](article?.dataset.id, article);
  } catch (error) {
    sayProblem(error);
  } finally {
    button.disabled = false;
  }
});

if (form) {
  const run = (action) => async () => {
    try {
      await action();
    } catch (error) {
      sayProblem(error);
    }
  };
  document.getElementById("check").addEventListener("click", run(check));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(start)();
  });
  bindKeys({ c: run(check), t: run(start) });
}

follow();
watchShadow(gallery, refresh);
