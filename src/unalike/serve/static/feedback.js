// What people say about a decision: whether it was right, with a way back to what was said before.
import { call, say } from "./api.js";

/**
 * Say whether a decision was right.
 * @param {Element} answer with `data-id`, and `data-verdict` and `data-label` of what was said before
 * @param {string} verdict
 * @param {string | null} label the right class
 * @param {(id: string) => Promise<void>} show shows the answer anew
 * @returns {Promise<() => Promise<void>>} takes it back
 */
export async function giveFeedback(answer, verdict, label, show) {
  const { id, verdict: before, label: labelBefore } = answer.dataset;
  const path = `/v1/decisions/${id}/feedback`;
  await call("POST", path, { json: { verdict, label } });
  return async () => {
    const hasLabel = ["wrong", "new class"].includes(before);
    await call("POST", path, { json: { verdict: before || "withdrawn", label: (hasLabel && labelBefore) || null } });
    await show(id);
  };
}

/** Say it, and say that it was said: when that stands there, the next key counts. */
export async function judge(answer, verdict, words, show) {
  const undo = await giveFeedback(answer, verdict, null, show);
  await show(answer.dataset.id);
  const name = answer.querySelector(".file")?.textContent;
  say(name ? `${words} (${name})` : words, { undo });
}
