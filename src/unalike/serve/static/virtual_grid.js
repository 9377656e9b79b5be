// A grid of any length in the window's own scroll: what is near the window is in the page, the rest is fetched part by part when it is
// needed. All cells have one height. Arrow keys move between cells, of which one is in the order of Tab.

const WAIT_MS = 40; // a fast scroll fetches where it comes to rest
const MAX_PARTS = 40; // parts that are remembered

export class VirtualGrid {
  /**
   * @param {HTMLUListElement} list holds the first part, as the server rendered it
   * @param {{partSize: number, rowHeight: number, minWidth: number, gap: number,
   *          fetchPart: (offset: number) => Promise<HTMLUListElement>, onPart: (part: HTMLUListElement) => void,
   *          onError: (error: Error) => void}} options
   */
  constructor(list, options) {
    Object.assign(this, options);
    this.list = list;
    this.generation = 0;
    this.restart(list);
    list.classList.add("virtual");
    list.addEventListener("keydown", (event) => this.move(event));
    list.addEventListener("focusin", (event) => this.setCurrent(Number(event.target.closest("li").dataset.number)));
    addEventListener("scroll", () => this.schedule(), { passive: true });
    new ResizeObserver(() => this.schedule()).observe(list);
  }

  /** Show another list, of which this is the first part. */
  restart(part) {
    this.generation += 1;
    this.parts = new Map();
    this.waiting = new Set();
    this.current = 0;
    this.wantsFocus = false;
    this.take(0, part);
    this.render();
  }

  take(number, part) {
    const cells = [...part.querySelectorAll("li")];
    cells.forEach((cell, place) => {
      cell.dataset.number = number * this.partSize + place;
    });
    this.total = Number(part.dataset.total);
    this.parts.set(number, cells);
    if (part === this.list) part.replaceChildren();
    this.onPart(part);
  }

  schedule() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.render();
    });
  }

  cell(number) {
    return this.parts.get(Math.floor(number / this.partSize))?.[number % this.partSize];
  }

  /** Put the cells near the window into the page, in their order, and remove the others. */
  render() {
    const width = this.list.clientWidth;
    if (!width) return;
    this.columns = Math.max(1, Math.floor((width + this.gap) / (this.minWidth + this.gap)));
    const pitch = this.rowHeight + this.gap;
    this.list.style.height = `${Math.max(0, Math.ceil(this.total / this.columns) * pitch - this.gap)}px`;
    const top = -this.list.getBoundingClientRect().top;
    const firstSeen = Math.max(0, Math.floor(top / pitch)) * this.columns;
    const lastSeen = Math.min(this.total, Math.ceil((top + innerHeight) / pitch) * this.columns);
    const spare = Math.ceil(innerHeight / 2 / pitch) * this.columns;
    if (!this.list.contains(document.activeElement) && !this.wantsFocus) {
      this.current = Math.max(0, Math.min(Math.max(this.current, firstSeen), lastSeen - 1));
    }
    const [first, last] = [Math.max(0, firstSeen - spare), Math.min(this.total, lastSeen + spare)];
    const wanted = new Set();
    for (let number = first; number < last; number += 1) wanted.add(number);
    if (this.current < this.total) wanted.add(this.current);
    this.place([...wanted].sort((a, b) => a - b), width);
    this.fetchMissing(wanted, first, last);
  }

  place(numbers, width) {
    const cells = numbers.map((number) => this.cell(number)).filter(Boolean);
    const kept = new Set(cells);
    for (const child of [...this.list.children]) if (!kept.has(child)) child.remove();
    const cellWidth = (width - (this.columns - 1) * this.gap) / this.columns;
    let next = this.list.firstElementChild;
    for (const cell of cells) {
      const number = Number(cell.dataset.number);
      const x = (number % this.columns) * (cellWidth + this.gap);
      const y = Math.floor(number / this.columns) * (this.rowHeight + this.gap);
      cell.style.transform = `translate(${x}px, ${y}px)`;
      cell.style.width = `${cellWidth}px`;
      cell.querySelector("a").tabIndex = number === this.current ? 0 : -1;
      if (cell === next) next = next.nextElementSibling;
      else this.list.insertBefore(cell, next);
    }
    if (this.wantsFocus && this.cell(this.current)) {
      this.wantsFocus = false;
      this.cell(this.current).querySelector("a").focus({ preventScroll: true });
    }
  }

  /**
   * Fetch, a moment later, the parts that are missing then; when none is, the part before the cells near the window and the one after
   * them. Cells that come with their part when they are near already are drawn all in one frame, which takes several times as long.
   */
  fetchMissing(wanted, first, last) {
    const partOf = (number) => Math.floor(number / this.partSize);
    this.wantedParts = new Set([...wanted].map(partOf));
    const has = (part) => this.parts.has(part);
    const isComplete = [...this.wantedParts].every(has);
    this.list.setAttribute("aria-busy", String(!isComplete));
    for (const number of isComplete ? [first - this.partSize, last - 1 + this.partSize] : []) {
      if (number > -this.partSize) this.wantedParts.add(partOf(Math.max(0, Math.min(number, this.total - 1))));
    }
    if ([...this.wantedParts].every(has) || this.timer) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      for (const part of this.wantedParts) if (!this.parts.has(part) && !this.waiting.has(part)) this.fetch(part);
    }, WAIT_MS);
  }

  async fetch(number) {
    const { generation } = this;
    this.waiting.add(number);
    try {
      const part = await this.fetchPart(number * this.partSize);
      if (generation !== this.generation) return;
      this.take(number, part);
      this.forgetFar(number);
    } catch (error) {
      if (generation === this.generation) this.onError(error);
      return;
    } finally {
      if (generation === this.generation) this.waiting.delete(number);
    }
    this.render();
  }

  forgetFar(near) {
    if (this.parts.size <= MAX_PARTS) return;
    const far = [...this.parts.keys()].sort((a, b) => Math.abs(b - near) - Math.abs(a - near));
    for (const part of far.slice(0, this.parts.size - MAX_PARTS)) this.parts.delete(part);
  }

  setCurrent(number) {
    const before = this.cell(this.current)?.querySelector("a");
    if (before) before.tabIndex = -1;
    this.current = number;
    this.cell(number).querySelector("a").tabIndex = 0;
  }

  move(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const page = Math.max(1, Math.floor(innerHeight / (this.rowHeight + this.gap)) - 1) * this.columns;
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns, PageDown: page, PageUp: -page,
      Home: -this.total, End: this.total,
    };
    if (!Object.hasOwn(steps, event.key)) return;
    event.preventDefault();
    this.focus(Math.max(0, Math.min(this.total - 1, this.current + steps[event.key])));
  }

  /** Bring a cell into the window and give it the focus, as soon as it is there. */
  focus(number) {
    this.current = number;
    this.wantsFocus = true;
    const y = Math.floor(number / this.columns) * (this.rowHeight + this.gap);
    const top = this.list.getBoundingClientRect().top + y;
    if (top < this.gap) scrollBy(0, top - this.gap);
    else if (top + this.rowHeight > innerHeight - this.gap) scrollBy(0, top + this.rowHeight - innerHeight + this.gap);
    this.render();
  }
}
