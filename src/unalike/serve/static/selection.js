// Selection in a listbox of several choices: click and Space choose one, Shift a range, arrow keys move, with Shift they choose.

/** The options of a listbox that is rendered again now and then: handlers are on its page. */
export class Selection {
  /**
   * @param {Element} page holds the listbox
   * @param {string} selector of the listbox
   * @param {(selected: Element[]) => void} onChange
   */
  constructor(page, selector, onChange) {
    Object.assign(this, { page, selector, onChange, anchor: null });
    page.addEventListener("click", (event) => this.click(event));
    page.addEventListener("keydown", (event) => this.key(event));
  }

  options() {
    return [...this.page.querySelectorAll(`${this.selector}[role=listbox] > [role=option]`)];
  }

  selected() {
    return this.options().filter((option) => option.getAttribute("aria-selected") === "true");
  }

  /** Forget what was selected: the list is another one. */
  reset() {
    this.anchor = null;
    this.onChange(this.selected());
  }

  /** Select all, or none where all are. */
  toggleAll() {
    const isAll = this.selected().length === this.options().length;
    this.set(this.options(), !isAll);
  }

  set(options, isSelected) {
    for (const option of options) option.setAttribute("aria-selected", String(isSelected));
    this.onChange(this.selected());
  }

  /** One option: choose it or not; with `isRange` all from the last chosen one to it. */
  choose(option, isRange) {
    const all = this.options();
    const from = all.indexOf(this.anchor);
    const to = all.indexOf(option);
    if (isRange && from >= 0) {
      this.set(all.slice(Math.min(from, to), Math.max(from, to) + 1), true);
    } else {
      this.set([option], option.getAttribute("aria-selected") !== "true");
      this.anchor = option;
    }
  }

  focus(option) {
    for (const other of this.options()) other.tabIndex = other === option ? 0 : -1;
    option.focus();
    option.scrollIntoView({ block: "nearest" });
  }

  click(event) {
    const option = event.target.closest(`${this.selector} > [role=option]`);
    if (!option) return;
    this.choose(option, event.shiftKey);
    this.focus(option);
  }

  key(event) {
    const option = event.target.closest(`${this.selector} > [role=option]`);
    if (!option || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = this.options();
    const columns = all.filter((other) => other.offsetTop === all[0].offsetTop).length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -all.length, End: all.length };
    if (event.key === " ") {
      event.preventDefault();
      this.choose(option, event.shiftKey);
    } else if (event.key === "Escape" && this.selected().length) {
      this.set(all, false);
    } else if (Object.hasOwn(steps, event.key)) {
      event.preventDefault();
      const next = all[Math.max(0, Math.min(all.length - 1, all.indexOf(option) + steps[event.key]))];
      if (event.shiftKey) {
        if (!this.anchor) this.anchor = option;
        this.choose(next, true);
      }
      this.focus(next);
    }
  }
}
