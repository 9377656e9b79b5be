// A candidate that answers a share of the traffic too: it is begun and ended here, and its numbers are followed while it runs.
import { ApiError, call, galleryPath, say, sayProblem } from "./api.js";
import { fetchFragment } from "./fragments.js";

const POLL_MS = 1500;
const place = document.getElementById("shadow-place");
const dialog = document.getElementById("share-dialog");
let timer = 0;
let ended = async () => {};

/** Show the numbers as they are now; what is open stays open, and the focus stays where it is. */
async function refresh(gallery) {
  clearTimeout(timer);
  try {
    const part = await fetchFragment(`/train/shadow?${new URLSearchParams({ gallery })}`);
    const before = document.getElementById("shadow");
    for (const details of before.querySelectorAll("details[open]")) part.querySelector(`#${CSS.escape(details.id)}`)?.setAttribute("open", "");
    if (part.outerHTML !== before.outerHTML) {
      const focused = before.contains(document.activeElement) ? document.activeElement.id : "";
      place.replaceChildren(part);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      if (before.dataset.runs === "yes" && part.dataset.runs === "no") await ended();
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
  }
  follow(gallery);
}

/** Look again while a shadow runs. */
function follow(gallery) {
  clearTimeout(timer);
  if (document.getElementById("shadow").dataset.runs === "yes") timer = setTimeout(() => refresh(gallery), POLL_MS);
}

/** Ask for the share; null where no shadow is to begin. */
function askShare(name) {
  document.getElementById("share-name").textContent = name;
  dialog.returnValue = "";
  dialog.showModal();
  document.getElementById("share").select();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.onclose = null;
      resolve(dialog.returnValue === "begin" ? Number(document.getElementById("share").value) / 100 : null);
    };
  });
}

/**
 * Let a candidate answer a share of the traffic too.
 * @returns {Promise<boolean>} whether it was begun
 */
export async function beginShadow(gallery, candidate, name) {
  const share = await askShare(name);
  if (share === null) return false;
  await call("POST", galleryPath(gallery, "/shadow"), { json: { candidate, share } });
  say("The shadow began.");
  await refresh(gallery);
  return true;
}

/** Follow the shadow of a gallery; `onEnd` is called when it was ended, here or by somebody else. */
export function watchShadow(gallery, onEnd) {
  ended = onEnd;
  place.addEventListener("click", async (event) => {
    if (!event.target.closest("#end-shadow")) return;
    try {
      await call("DELETE", galleryPath(gallery, "/shadow"));
      say("The shadow ended.");
      await refresh(gallery);
    } catch (error) {
      sayProblem(error);
    }
  });
  follow(gallery);
}
