// Calls of the API, and the messages about them. All changes of all pages go through `call`.

const TRIES = 5;
const undos = [];

/** An error that the service answered, or that it could not be reached. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the service answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** A random name; crypto.randomUUID exists under https alone. */
export function randomName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Call the API.
 * @param {string} method
 * @param {string} path
 * @param {{json?: object, form?: FormData, requestId?: string}} options
 * @returns {Promise<any>} the JSON of the answer
 * @throws {ApiError}
 */
export async function call(method, path, { json, form, requestId } = {}) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") {
    headers["X-CSRF-Token"] = document.querySelector('meta[name="csrf-token"]').content;
    headers["Idempotency-Key"] = randomName();
  }
  if (requestId) headers["X-Request-ID"] = requestId;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json !== undefined ? JSON.stringify(json) : form;
  for (let attempt = 1; ; attempt += 1) {
    let response;
    try {
      response = await fetch(path, { method, headers, body, credentials: "same-origin" });
    } catch {
      throw new ApiError(0, { detail: "the service cannot be reached; look whether it runs, and try again" });
    }
    if (response.ok) return response.json();
    const problem = await response.json().catch(() => ({}));
    const wait = Number(response.headers.get("Retry-After"));
    if ([409, 429, 503].includes(response.status) && wait && attempt < TRIES) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(wait, 5)));
      continue;
    }
    if (response.status === 401 && location.pathname !== "/sign-in") signIn();
    throw new ApiError(response.status, problem);
  }
}

/** Go to the page on which one signs in, and come back afterwards. */
export function signIn() {
  location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
}

/** The address of something of a gallery in the API. */
export function galleryPath(gallery, path) {
  return `/v1/galleries/${encodeURIComponent(gallery)}${path}`;
}

/**
 * Show a message.
 * @param {string} text
 * @param {{isBad?: boolean, isLasting?: boolean, undo?: () => Promise<void>}} options `undo` takes the change back; an error goes at the
 *   next action, a lasting one only when it is closed
 */
export function say(text, { isBad = false, isLasting = false, undo } = {}) {
  const message = document.createElement("div");
  message.className = `message${isBad ? " bad" : ""}${undo || isLasting ? " lasting" : ""}`;
  const words = document.createElement("span");
  words.textContent = text;
  message.append(words);
  if (undo) {
    const entry = { message, undo, text };
    undos.push(entry);
    const button = makeButton("Undo", () => takeBack(entry));
    words.id = `message-${randomName()}`;
    button.setAttribute("aria-describedby", words.id);
    message.append(button);
  }
  message.append(makeButton("Close", () => message.remove()));
  const region = document.getElementById("messages");
  region.append(message);
  while (region.children.length > 3) region.firstElementChild.remove();
}

/** Show an error of a call. */
export function sayProblem(error) {
  if (!(error instanceof ApiError)) throw error;
  say(error.message, { isBad: true });
}

/** Undo the last change that can be undone. */
export async function undoLast() {
  if (undos.length) await takeBack(undos.at(-1));
  else say("There is nothing to undo on this page.");
}

async function takeBack(entry) {
  const place = undos.indexOf(entry);
  if (place < 0) return;
  undos.splice(place, 1);
  try {
    await entry.undo();
    entry.message.remove();
    say(`Undone: ${entry.text}`);
  } catch (error) {
    undos.splice(place, 0, entry);
    sayProblem(error);
  }
}

/** Take errors away: they go at the next action, since what was wrong then says nothing about what is done now. One with an undo stays. */
export function forgetErrors() {
  for (const message of document.querySelectorAll("#messages .message.bad:not(.lasting)")) message.remove();
}

document.addEventListener("click", ({ target }) => {
  if (target.closest("button, [role=option]") && !target.closest("#messages, #keys, [data-close]")) forgetErrors();
}, { capture: true });
document.addEventListener("change", ({ target }) => {
  if (target.type === "file") forgetErrors();
}, { capture: true });
for (const type of ["submit", "drop", "paste"]) document.addEventListener(type, forgetErrors, { capture: true });

/** A button that does something. */
export function makeButton(name, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", action);
  return button;
}
