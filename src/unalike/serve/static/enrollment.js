// References: pictures that are enrolled one by one, with progress and a list of those that were refused; and kept pictures, to undo.
import { ApiError, call, galleryPath } from "./api.js";

const AT_ONCE = 3; // requests; more would only wait in the queue of the server
const MOST_MOVED = 1000; // references of a request that moves or removes
let running = 0;

addEventListener("beforeunload", (event) => {
  if (running) event.preventDefault();
});

/**
 * Enroll pictures, each by a request of its own: one that is refused holds up no other.
 * @param {string} gallery
 * @param {{file: File, label: string, name: string}[]} pictures
 * @param {Element} place where progress is shown
 * @returns {Promise<{ids: number[], refused: {name: string, reason: string}[]}>}
 */
export async function enrollPictures(gallery, pictures, place) {
  const ids = [];
  const refused = [];
  if (!pictures.length) return { ids, refused };
  const show = showProgress(place, pictures.length);
  const queue = [...pictures];
  running += 1;
  const work = async () => {
    while (queue.length) {
      const { file, label, name } = queue.shift();
      try {
        const form = new FormData();
        form.append("image", file, name);
        form.append("label", label);
        const { references } = await call("POST", galleryPath(gallery, "/references"), { form });
        ids.push(references[0].id);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        refused.push({ name, reason: error.message });
      }
      show(ids.length + refused.length);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, queue.length) }, work));
  } finally {
    running -= 1;
    place.replaceChildren();
  }
  if (refused.length) place.append(listRefused(refused));
  return { ids, refused };
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
    line.textContent = `${name}: ${reason}`;
    list.append(line);
  }
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => section.remove());
  section.append(title, list, close);
  return section;
}

/** All references of a class. */
export async function listReferences(gallery, label) {
  const references = [];
  let after = "-1";
  while (after !== null) {
    const query = new URLSearchParams({ label, after, limit: "1000" });
    const page = await call("GET", galleryPath(gallery, `/references?${query}`));
    references.push(...page.references);
    after = page.next;
  }
  return references;
}

/** The content hash of the picture of a reference, where the service keeps it. */
export function keptPicture(reference) {
  return /^sha256:([0-9a-f]{64})\//.exec(reference.name)?.[1] ?? null;
}

/** Returns what enrolls kept pictures again; called again after an error it goes on where it stopped. */
export function restorer(gallery, label, hashes, most) {
  const rest = [...hashes];
  return async () => {
    while (rest.length) {
      const pictures = rest.slice(0, most);
      await call("POST", galleryPath(gallery, "/references"), { json: { pictures, label } });
      rest.splice(0, pictures.length);
    }
  };
}

/** Returns what moves references to a class, or removes them without one; called again after an error it goes on. */
export function changer(gallery, ids, label = null) {
  const rest = [...ids];
  return async () => {
    const references = [];
    while (rest.length) {
      const some = rest.slice(0, MOST_MOVED);
      const path = galleryPath(gallery, `/references/${label === null ? "remove" : "move"}`);
      const answer = await call("POST", path, { json: label === null ? { ids: some } : { ids: some, label } });
      references.push(...(answer.references ?? []));
      rest.splice(0, some.length);
    }
    return references;
  };
}
