// Pictures that are sent one by one: a few at once, each with a line until its answer is there.
import { checkFile, reasonOf, visibleName } from "./sending.js";

const AT_ONCE = 3; // requests; more would only wait in the queue of the server

/**
 * Make a queue.
 * @param {(file: File) => Promise<void>} send sends one picture, and shows its answer
 * @param {{verb: string, onStart?: () => void}} options what is said of a picture that was sent; called before the first of several
 * @returns {(pictures: Iterable<File>) => void} takes pictures in
 */
export function startQueue(send, { verb, onStart = () => {} }) {
  const pending = document.getElementById("pending");
  const queue = [];
  let running = 0;

  async function work({ file, line }) {
    const name = visibleName(file.name || "picture");
    line.textContent = `${name}: ${verb}`;
    try {
      await checkFile(file);
      await send(file);
      line.remove();
    } catch (error) {
      line.className = "bad";
      line.textContent = `${name}: ${reasonOf(name, error)}`;
      const close = document.createElement("button");
      close.type = "button";
      close.textContent = "Close";
      close.addEventListener("click", () => line.remove());
      line.append(" ", close);
    }
  }

  function next() {
    while (running < AT_ONCE && queue.length) {
      running += 1;
      work(queue.shift()).finally(() => {
        running -= 1;
        next();
      });
    }
  }

  addEventListener("beforeunload", (event) => {
    if (running || queue.length) event.preventDefault();
  });
  return (pictures) => {
    const images = [...pictures];
    if (!images.length) return;
    onStart();
    for (const file of images) {
      const line = document.createElement("li");
      line.textContent = `${visibleName(file.name || "picture")}: waits`;
      pending.append(line);
      queue.push({ file, line });
    }
    next();
  };
}

/** Write the name of this visit's pictures into the address, under which a reload finds their answers. */
export function keepBatchInAddress(values) {
  const address = new URL(location.href);
  if (address.searchParams.get("batch") === values.batch) return;
  address.search = new URLSearchParams(values).toString();
  history.replaceState(null, "", address);
  document.getElementById("answer-list").replaceChildren();
  document.querySelector("#answers h2").textContent = "Answers of this visit";
}
