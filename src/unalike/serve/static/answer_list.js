// A list of answers that the server renders: one of them is shown anew, keys move between them, buttons act on them once at a time.
import { sayProblem } from "./api.js";
import { fetchFragment } from "./fragments.js";

const list = document.getElementById("answer-list");

/** Fetch an answer as the server renders it; in place of the one that is shown, or before all others. */
export async function showAnswer(address, id) {
  const answer = await fetchFragment(address);
  const old = document.getElementById(`answer-${id}`);
  const hadFocus = old && (old.contains(document.activeElement) || document.activeElement === document.body);
  document.getElementById("no-answers")?.setAttribute("hidden", "");
  if (old) old.replaceWith(answer);
  else list.prepend(answer);
  if (hadFocus) answer.focus({ preventScroll: true });
}

/** The answer that keys mean: the focused one, else the first. */
export function currentAnswer() {
  return document.activeElement.closest("article") ?? list.firstElementChild;
}

function move(step) {
  const answers = [...list.querySelectorAll("article")];
  const place = answers.indexOf(document.activeElement.closest("article"));
  const next = answers[place < 0 ? 0 : Math.min(Math.max(place + step, 0), answers.length - 1)];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

/** Bindings of the keys that move between answers. */
export const moveKeys = { ArrowDown: () => move(1), ArrowUp: () => move(-1), ArrowRight: () => move(1), ArrowLeft: () => move(-1) };

/**
 * Let the buttons of answers act.
 * @param {Record<string, (answer: Element) => Promise<void>>} acts by the `data-act` of the button
 * @returns {(name: string, answer: Element) => Promise<void>} acts where the answer has such a button
 */
export function startActs(acts) {
  const busy = new Set();
  const act = async (name, answer) => {
    const isThere = answer?.querySelector(`[data-act="${name}"]`);
    if (!isThere || busy.has(answer.dataset.id)) return;
    busy.add(answer.dataset.id);
    try {
      await acts[name](answer);
    } catch (error) {
      sayProblem(error);
    } finally {
      busy.delete(answer.dataset.id);
    }
  };
  document.getElementById("answers").addEventListener("click", (event) => {
    const button = event.target.closest("[data-act]");
    if (button) act(button.dataset.act, button.closest("article"));
  });
  return act;
}
