// Regions of a picture: boxes that are drawn by dragging over it, or typed; all in pixels of the frame.

const SIDES = ["left", "top", "right", "bottom"];
const LEAST = 2; // pixels of the frame of a side that was drawn

/** The editor of a page; see fragments/region_editor.html.j2. */
export class RegionEditor {
  /** @param {() => void} onChange called after each change by hand */
  constructor(onChange = () => {}) {
    this.element = document.getElementById("region-editor");
    this.picture = document.getElementById("region-picture");
    this.list = document.getElementById("region-list");
    this.drawing = this.element.querySelector("svg");
    this.onChange = onChange;
    this.boxes = JSON.parse(this.element.dataset.boxes);
    const [height, width] = this.element.dataset.frame.split(" ").map(Number);
    this.frame = width ? { width, height } : null;
    this.mayChange = Boolean(this.element.querySelector("[data-act=add-region]"));
    this.element.querySelector("[data-act=add-region]")?.addEventListener("click", () => this.add());
    if (this.mayChange) this.startDrawing();
    this.render();
  }

  /** Show another picture; where it says the size of the frame, boxes are in its pixels. */
  async showPicture(address, { isFrame = false } = {}) {
    this.picture.src = address;
    await this.picture.decode();
    this.picture.hidden = false;
    document.getElementById("region-empty").hidden = true;
    if (isFrame) this.frame = { width: this.picture.naturalWidth, height: this.picture.naturalHeight };
    this.render();
  }

  /** Set the boxes, as [left, top, right, bottom]. */
  setBoxes(boxes) {
    this.boxes = boxes.map((box) => [...box]);
    this.render();
  }

  /** Boxes that have an area. */
  validBoxes() {
    return this.boxes.filter(([left, top, right, bottom]) => left < right && top < bottom);
  }

  add() {
    const { width, height } = this.frame ?? { width: 100, height: 100 };
    this.boxes.push([width * 0.4, height * 0.4, width * 0.6, height * 0.6].map(Math.round));
    this.render();
    this.list.lastElementChild.querySelector("input").focus();
    this.onChange();
  }

  render() {
    this.drawBoxes();
    this.list.replaceChildren(...this.boxes.map((box, number) => this.makeLine(box, number)));
  }

  drawBoxes() {
    const { width, height } = this.frame ?? { width: 1, height: 1 };
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.drawing.replaceChildren(...this.boxes.map((box) => this.makeRectangle(box)));
  }

  makeLine(box, number) {
    const line = document.createElement("li");
    const group = document.createElement("div");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", `Region ${number + 1}`);
    SIDES.forEach((side, place) => {
      const label = document.createElement("label");
      const field = document.createElement("input");
      field.type = "number";
      field.min = "0";
      if (this.frame) field.max = String(place % 2 ? this.frame.height : this.frame.width);
      field.value = String(box[place]);
      field.disabled = !this.mayChange;
      field.addEventListener("input", () => {
        box[place] = Math.max(0, Math.round(Number(field.value) || 0));
        this.drawBoxes();
        this.onChange();
      });
      label.append(side, field);
      group.append(label);
    });
    if (this.mayChange) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Remove";
      button.setAttribute("aria-label", `Remove region ${number + 1}`);
      button.addEventListener("click", () => {
        this.boxes.splice(number, 1);
        this.render();
        this.element.querySelector("[data-act=add-region]").focus();
        this.onChange();
      });
      group.append(button);
    }
    line.append(group);
    return line;
  }

  startDrawing() {
    let start = null;
    let rectangle = null;
    const boxTo = (event) => {
      const place = this.placeOf(event);
      return [Math.min(start.x, place.x), Math.min(start.y, place.y), Math.max(start.x, place.x), Math.max(start.y, place.y)];
    };
    this.drawing.addEventListener("pointerdown", (event) => {
      if (!this.frame || event.button) return;
      event.preventDefault();
      start = this.placeOf(event);
      rectangle = this.makeRectangle(boxTo(event));
      this.drawing.append(rectangle);
      this.drawing.setPointerCapture(event.pointerId);
    });
    this.drawing.addEventListener("pointermove", (event) => {
      if (start) setRectangle(rectangle, boxTo(event));
    });
    const end = (event) => {
      if (!start) return;
      const box = boxTo(event);
      start = null;
      if (event.type === "pointerup" && box[2] - box[0] >= LEAST && box[3] - box[1] >= LEAST) {
        this.boxes.push(box);
        this.onChange();
      }
      this.render();
    };
    this.drawing.addEventListener("pointerup", end);
    this.drawing.addEventListener("pointercancel", end);
  }

  makeRectangle(box) {
    const rectangle = document.createElementNS(this.drawing.namespaceURI, "rect");
    setRectangle(rectangle, box);
    return rectangle;
  }

  /** A place of the pointer in pixels of the frame. */
  placeOf(event) {
    const area = this.drawing.getBoundingClientRect();
    const { width, height } = this.frame;
    return {
      x: Math.min(width, Math.max(0, Math.round((width * (event.clientX - area.left)) / area.width))),
      y: Math.min(height, Math.max(0, Math.round((height * (event.clientY - area.top)) / area.height))),
    };
  }
}

function setRectangle(rectangle, [left, top, right, bottom]) {
  const values = { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
  for (const [name, value] of Object.entries(values)) rectangle.setAttribute(name, String(value));
}
