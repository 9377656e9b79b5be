// Layers over a picture, such as a heat map: fetched when they are first shown.
import { ApiError, say } from "./api.js";

/**
 * Show a layer, or hide it again.
 * @param {HTMLButtonElement} button says by `aria-pressed` whether it is shown
 * @param {HTMLImageElement} layer with its address in `data-src`
 */
export async function showLayer(button, layer) {
  const isShown = !layer.hidden;
  if (!isShown && !layer.src) {
    const response = await fetch(layer.dataset.src, { credentials: "same-origin" }).catch(() => null);
    if (!response?.ok) throw new ApiError(response?.status ?? 0, (await response?.json().catch(() => null)) ?? {});
    layer.src = URL.createObjectURL(await response.blob());
    await layer.decode().catch(() => say("The layer cannot be shown.", { isBad: true }));
  }
  layer.hidden = isShown;
  button.setAttribute("aria-pressed", String(!isShown));
}
