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
  const { results, refused } = await sendAll(pictures, place, async ({ file, label, name, attributes = {} }) => {
    const form = new FormData();
    form.append("image", file, name);
    form.append("label", label);
    if (mustExist) form.append("require_class", "true");
    form.append("skip_known", "true");
    if (Object.keys(attributes).length) form.append("attributes", JSON.stringify(attributes));
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

/**
 * What brings a reference back: the content hash of its picture, and its attributes; null where the service does not keep the picture.
 * @returns {?{hash: string, attributes: Object<string, string>}}
 */
export function keptPicture({ name, attributes }) {
  const hash = /^sha256:([0-9a-f]{64})\//.exec(name)?.[1];
  return hash ? { hash, attributes } : null;
}

/**
 * Returns what enrolls kept pictures again, with their attributes; called again after an error it goes on where it stopped.
 * @param {{hash: string, attributes: Object<string, string>}[]} kept
 * @param {number} most pictures of a request
 */
export function restorer(gallery, label, kept, most) {
  const rest = Object.values(Object.groupBy(kept, ({ attributes }) => JSON.stringify(attributes)));
  return async () => {
    while (rest.length) {
      const [{ attributes }] = rest[0];
      const pictures = rest[0].slice(0, most).map(({ hash }) => hash);
      await call("POST", galleryPath(gallery, "/references"), { json: { pictures, label, attributes } });
      rest[0].splice(0, pictures.length);
      if (!rest[0].length) rest.shift();
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
