// Parts of a page as the server renders them, fetched by scripts. htmx drops all but the last of several requests for one place;
// these may run side by side.
import { ApiError, signIn } from "./api.js";

/**
 * Fetch a part of a page.
 * @param {string} address
 * @returns {Promise<Element>} its first element
 * @throws {ApiError}
 */
export async function fetchFragment(address) {
  const response = await fetch(address, { credentials: "same-origin", headers: { "HX-Request": "true" } }).catch(() => {
    throw new ApiError(0, { detail: "the service cannot be reached; look whether it runs, and try again" });
  });
  if (response.status === 401) signIn();
  if (!response.ok) throw new ApiError(response.status, await response.json().catch(() => ({})));
  const parsed = new DOMParser().parseFromString(await response.text(), "text/html");
  return document.adoptNode(parsed.body.firstElementChild);
}
