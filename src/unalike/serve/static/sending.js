// Many pictures that are sent one by one, with progress and a list of those that were refused.
import { ApiError } from "./api.js";

const AT_ONCE = 3; // requests; more would only wait in the queue of the server
let running = 0;

/**
 * Look whether a file can be sent; a folder that was dropped among pictures cannot.
 * @throws {ApiError}
 */
export async function checkFile(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new ApiError(0, { detail: "it cannot be read; of a folder, choose the pictures in it" });
  }
  if (!file.size) throw new ApiError(0, { detail: "an empty file" });
}

/** A name with control characters and those that turn the direction of writing as the service writes them: `\u202e`. */
export function visibleName(name) {
  return name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (letter) => {
    const code = letter.codePointAt(0);
    if (letter === "\u200c" || letter === "\u200d") return letter; // scripts and emoji need them
    if (code < 256) return `\\x${code.toString(16).padStart(2, "0")}`;
    return code < 65536 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
  });
}

/** What is said of a picture that was refused; the service begins with the name of its file. */
export function reasonOf(name, error) {
  const start = `${visibleName(name)}: `;
  return error.message.startsWith(start) ? error.message.slice(start.length) : error.message;
}

addEventListener("beforeunload", (event) => {
  if (running) event.preventDefault();
});

/**
 * Send pictures, each by a request of its own: one that is refused holds up no other.
 * @template {{name: string, file?: File}} Picture
 * @template Result
 * @param {Picture[]} pictures
 * @param {Element} place where progress is shown, and then what was refused
 * @param {(picture: Picture) => Promise<Result>} send
 * @returns {Promise<{results: Result[], refused: {name: string, reason: string}[]}>}
 */
export async function sendAll(pictures, place, send) {
  const results = [];
  const refused = [];
  if (!pictures.length) return { results, refused };
  const show = showProgress(place, pictures.length);
  const queue = [...pictures];
  running += 1;
  const work = async () => {
    while (queue.length) {
      const picture = queue.shift();
      try {
        if (picture.file) await checkFile(picture.file);
        results.push(await send(picture));
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        refused.push({ name: picture.name, reason: reasonOf(picture.name, error) });
      }
      show(results.length + refused.length);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, queue.length) }, work));
  } finally {
    running -= 1;
    place.replaceChildren();
  }
  if (refused.length) place.append(listRefused(refused));
  return { results, refused };
}

function showProgress(place, total) {
  const text = document.createElement("label");
  const bar = document.createElement("progress");
  bar.id = "enrolling-bar";
  text.htmlFor = bar.id;
  bar.max = total;
  place.replaceChildren(text, bar);
  const show = (done) => {
    bar.value = done;
    text.textContent = `${done} of ${total} pictures`;
  };
  show(0);
  return show;
}

/** What was refused, with its reason and a button that takes the list away. */
export function listRefused(refused) {
  const section = document.createElement("section");
  section.setAttribute("aria-label", "Refused");
  const title = document.createElement("h2");
  title.textContent = `${refused.length} refused`;
  const list = document.createElement("ul");
  list.className = "refused";
  for (const { name, reason } of refused) {
    const line = document.createElement("li");
    line.textContent = `${visibleName(name)}: ${reason}`;
    list.append(line);
  }
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => section.remove());
  section.append(title, list, close);
  return section;
}
