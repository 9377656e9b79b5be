// Where pictures come in: they are dropped on the page or on a part of it, pasted, or chosen in the file fields of that part.

/**
 * Take pictures in.
 * @param {Element} zone it is marked while files are above it; its file fields are read
 * @param {(files: File[]) => void} take
 * @param {{isWholePage?: boolean, fields?: Iterable<HTMLInputElement>}} options whether files count wherever they are dropped on the page,
 *   and pasted ones too; the file fields, by default those of the zone
 */
export function startDropZone(zone, take, { isWholePage = true, fields = zone.querySelectorAll("input[type=file]") } = {}) {
  const area = isWholePage ? window : zone;
  const give = (list) => {
    const files = [...(list ?? [])];
    if (files.length) take(files);
  };
  for (const field of fields) {
    field.addEventListener("change", () => {
      const files = [...field.files];
      field.value = "";
      give(files);
    });
  }
  area.addEventListener("dragover", (event) => {
    // A part of the page that takes files itself has taken this one.
    if (event.defaultPrevented) return zone.classList.remove("over");
    event.preventDefault();
    return zone.classList.add("over");
  });
  area.addEventListener("dragleave", (event) => {
    const isInside = isWholePage ? event.relatedTarget : zone.contains(event.relatedTarget);
    if (!isInside) zone.classList.remove("over");
  });
  area.addEventListener("drop", (event) => {
    zone.classList.remove("over");
    if (event.defaultPrevented) return;
    event.preventDefault();
    give(event.dataTransfer.files);
  });
  if (isWholePage) addEventListener("paste", (event) => give(event.clipboardData?.files));
}
