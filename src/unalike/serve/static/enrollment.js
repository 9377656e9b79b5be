// References: pictures that are enrolled, and kept pictures, to undo.
import { call, galleryPath } from "./api.js";
import { sendAll } from "./sending.js";

const MOST_MOVED = 1000; // references of a request that moves or removes

/**
 * Enroll pictures.
 * @param {string} gallery
 * @param {{file: File, label: string, name: string}[]} pictures
 * @param {Element} place where progress is shown
 * @param {{mustExist?: boolean, onAdded?: (ids: number[]) => void}} options `mustExist`: no new class is made; `onAdded` is called for each
 *   picture that was sent, with the id of its reference where it is a new one
 * @returns {Promise<{ids: number[], known: number, refused: {name: string, reason: string}[]}>} `known`: pictures that were references of
 *   their class before, and are not added again
 */
export async function enrollPictures(gallery, pictures, place, { mustExist = false, onAdded = () => {} } = {}) {
  const { results, refused } = await sendAll(pictures, place, async ({ file, label, name }) => {
    const form = new FormData();
    form.append("image", file, name);
    form.append("label", label);
    if (mustExist) form.append("require_class", "true");
    form.append("skip_known", "true");
    const { references } = await call("POST", galleryPath(gallery, "/references"), { form });
    const ids = references.map(({ id }) => id);
    onAdded(ids);
    return ids;
  });
  const ids = results.flat();
  return { ids, known: results.length - ids.length, refused };
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
