// The page Settings: keys are created and revoked, retention is changed.
import { call, say, sayProblem } from "./api.js";
import { confirmChange } from "./confirm_dialog.js";
import { fetchFragment } from "./fragments.js";

const { needsKey } = document.getElementById("settings").dataset;
const keyPlace = document.getElementById("key-place");
const retentionPlace = document.getElementById("retention-place");
let isBusy = false;

/** Do one thing at a time. */
async function alone(work) {
  if (isBusy) return;
  isBusy = true;
  try {
    await work();
  } catch (error) {
    sayProblem(error);
  } finally {
    isBusy = false;
  }
}

async function show(place, address) {
  place.replaceChildren(await fetchFragment(address));
}

// ---- keys ----

/** Show a secret until it is said that it was taken. */
function showSecret(name, secret) {
  const dialog = document.getElementById("secret");
  const field = document.getElementById("secret-text");
  document.getElementById("secret-name").textContent = name;
  field.value = secret;
  document.getElementById("secret-state").textContent = "";
  dialog.showModal();
  field.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      field.value = "";
      resolve();
    }, { once: true });
  });
}

document.getElementById("secret-copy").addEventListener("click", async () => {
  const field = document.getElementById("secret-text");
  field.select();
  // The clipboard of scripts exists under https and on this machine alone; the older way works elsewhere too.
  const isCopied = await (navigator.clipboard?.writeText(field.value).then(() => true, () => false) ?? false) || document.execCommand("copy");
  document.getElementById("secret-state").textContent = isCopied ? "Copied." : "The browser did not copy it: it is selected, copy it yourself.";
});
document.getElementById("secret-close").addEventListener("click", () => document.getElementById("secret").close());
// Neither Escape nor a click beside it takes the secret away.
document.getElementById("secret").addEventListener("cancel", (event) => event.preventDefault());
document.getElementById("secret").addEventListener("click", (event) => {
  if (event.target.id === "secret") event.stopImmediatePropagation();
}, { capture: true });

/** Ask before the first key: with it nobody does anything without one. */
function confirmFirst(name) {
  const content = document.createElement("div");
  for (const text of [
    `This browser is then signed in as ${name}. Everybody else, and every program that asks this service, needs a key from that moment on.`,
    "The secret is shown once: keep it before you go on. A lost one cannot be read again.",
    "Here the only admin key cannot be revoked. The way back is on the service's machine: when the administrator revokes all keys there (unalike serve keys revoke NAME), the service asks for none.",
  ]) {
    const paragraph = document.createElement("p");
    paragraph.textContent = text;
    content.append(paragraph);
  }
  return confirmChange({ title: "Lock the service by its first key?", content, verb: "Create the key" });
}

document.getElementById("new-key").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  alone(async () => {
    const { name, role, gallery } = Object.fromEntries(new FormData(form));
    if (needsKey !== "yes" && !(await confirmFirst(name))) return;
    const key = await call("POST", "/v1/keys", { json: { name, role, ...(gallery ? { gallery } : {}) } });
    await showSecret(key.name, key.secret);
    form.reset();
    if (needsKey === "yes") {
      say(`The key ${key.name} is made.`);
      await show(keyPlace, "/settings/keys");
    } else {
      // It was the first one: from now on nobody does anything without a key, and this page goes on with it.
      await call("POST", "/v1/session", { json: { key: key.secret } });
      location.reload();
    }
  });
});

keyPlace.addEventListener("click", (event) => {
  const button = event.target.closest("[data-revoke]");
  if (!button) return;
  alone(async () => {
    const content = document.createElement("p");
    content.textContent = `Whoever uses ${button.dataset.name} is refused from then on. This cannot be undone.`;
    if (!(await confirmChange({ title: "Revoke the key?", content, verb: "Revoke" }))) return;
    await call("DELETE", `/v1/keys/${encodeURIComponent(button.dataset.revoke)}`);
    say(`The key ${button.dataset.name} is revoked.`);
    await show(keyPlace, "/settings/keys");
  });
});

// ---- retention ----

async function change(values) {
  const before = Object.fromEntries(
    [...new URLSearchParams(document.getElementById("retention").dataset.values)].map(([name, value]) => [name, value === "" ? null : Number(value)]),
  );
  const put = async (json) => {
    await call("PUT", "/v1/settings", { json });
    await show(retentionPlace, "/settings/retention");
  };
  await put(values);
  say("The retention is changed.", { undo: () => put(before) });
}

retentionPlace.addEventListener("submit", (event) => {
  event.preventDefault();
  const entries = [...new FormData(event.target)].map(([name, value]) => [name, Number(value)]);
  alone(() => change(Object.fromEntries(entries)));
});
retentionPlace.addEventListener("click", (event) => {
  if (event.target.id === "retention-reset") alone(() => change({ retention_days: null, decision_days: null }));
});
