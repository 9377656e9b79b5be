// Dialogs that ask for something: shown with a title, and answered once.

/** A dialog of the page that is asked for an answer; null where it is closed without one. */
export class Dialog {
  /**
   * @param {string} id of the dialog; its heading is the title, its buttons with `data-close` cancel
   */
  constructor(id) {
    this.element = document.getElementById(id);
    this.finish = null;
    if (!this.element) return; // a page without it, such as that of a reader
    this.element.addEventListener("close", () => {
      if (!this.element.open) this.answer(null); // the event comes late: it may have been shown again
    });
    for (const button of this.element.querySelectorAll("[data-close]")) button.addEventListener("click", () => this.answer(null));
  }

  /** Show it; returns a promise of the answer. */
  ask(title) {
    this.element.querySelector("h2").textContent = title;
    this.element.showModal();
    return new Promise((resolve) => {
      this.finish = resolve;
    });
  }

  /** Close it with an answer. */
  answer(value) {
    const resolve = this.finish;
    this.finish = null;
    this.element.close();
    resolve?.(value);
  }
}
