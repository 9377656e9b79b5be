// The page Import: a folder whose folders are classes, or a table of paths and classes with its pictures.
import { say, sayProblem } from "./api.js";
import { parseTable } from "./csv_table.js";
import { changer, enrollPictures } from "./enrollment.js";
import { showBrokenImport, startRecord } from "./import_record.js";
import { listRefused } from "./sending.js";

const { gallery, suffixes, table: tableName } = document.getElementById("import").dataset;
const known = new Set(suffixes.split(" "));
const summary = document.getElementById("summary");
const place = document.getElementById("enrolling");
const next = document.getElementById("next-step");
const EXPORTED = ["path", "label", "id", "name"]; // the first columns of an export, and the prefix of some of the others (routes/export.py)
const PREFIX = "attribute_";
let table = null;
let isBusy = false;

/** The path of a file below the chosen folder; its name where it was chosen alone. */
function pathOf(file) {
  return file.webkitRelativePath ? file.webkitRelativePath.split("/").slice(1).join("/") : file.name;
}

function lastPart(path) {
  return path.split(/[\\/]/).at(-1);
}

function isImage(name) {
  return known.has(name.slice(name.lastIndexOf(".")).toLowerCase());
}

/** Files by the first folder of their paths. */
function entriesOfFolder(files) {
  const pictures = [];
  const refused = [];
  for (const file of files) {
    const name = pathOf(file);
    const parts = name.split("/");
    if (parts.some((part) => part.startsWith("."))) refused.push({ name, reason: "a hidden file or folder: left out" });
    else if (!isImage(name)) refused.push({ name, reason: `its name ends in none of ${[...known].join(" ")}: left out` });
    else if (parts.length < 2) refused.push({ name, reason: "it lies directly in the chosen folder; expected CLASS/PICTURE: move it into the folder of its class, and choose the folder again" });
    else pictures.push({ file, name, label: parts[0] });
  }
  return { pictures, refused };
}

/** The columns of attributes, by their numbers, in a table that the service exported: those behind its own four. */
function attributeColumns(head) {
  const isExport = head.slice(0, EXPORTED.length).join() === EXPORTED.join();
  const names = isExport ? head.slice(EXPORTED.length) : [];
  return names.map((name, number) => [name.startsWith(PREFIX) ? name.slice(PREFIX.length) : name, number + EXPORTED.length]);
}

/** Files by the lines of a table; what is named by neither side of them is refused. */
function entriesOfTable(text, files) {
  const [head = [], ...lines] = parseTable(text);
  const names = head.map((name) => name.trim().toLowerCase());
  const [pathColumn, labelColumn] = [names.indexOf("path"), names.indexOf("label")];
  if (pathColumn < 0 || labelColumn < 0) throw new Error("The table has no columns path and label: its first line must name them.");
  const columns = attributeColumns(head);
  const byPath = new Map(files.map((file) => [pathOf(file), file]));
  const byName = new Map();
  for (const file of files) byName.set(file.name, byName.has(file.name) ? null : file);
  const used = new Set();
  const pictures = [];
  const refused = [];
  lines.forEach((line, number) => {
    const [path, label] = [(line[pathColumn] ?? "").trim(), (line[labelColumn] ?? "").trim()];
    const name = path || `line ${number + 2}`;
    const file = byPath.get(path.replace(/^\.\//, "")) ?? byName.get(lastPart(path));
    const place = `line ${number + 2} of the table`;
    if (!path) refused.push({ name, reason: `${place} has no path: no picture of ${label || "it"} was kept` });
    else if (!label) refused.push({ name, reason: `${place} has no label: write its class into the column label` });
    else if (!file && byName.get(lastPart(path)) === null) refused.push({ name, reason: `several of the chosen files are called ${lastPart(path)}: write its path below the chosen folder into ${place}` });
    else if (!file) refused.push({ name, reason: `${place} names it, and it is not among the chosen files: choose it too` });
    else {
      used.add(file);
      const attributes = Object.fromEntries(columns.map(([key, column]) => [key, line[column] ?? ""]).filter(([, value]) => value));
      pictures.push({ file, name, label, attributes });
    }
  });
  for (const file of files) {
    if (!used.has(file) && pathOf(file) !== tableName) refused.push({ name: pathOf(file), reason: "no line of the table names it: add one with its path and its label" });
  }
  return { pictures, refused };
}

async function importPictures({ pictures, refused }) {
  summary.textContent = "";
  next.hidden = true;
  const record = startRecord(gallery, pictures.length);
  document.getElementById("broken-import").hidden = true;
  const result = await enrollPictures(gallery, pictures, place, { onAdded: record.add });
  record.end();
  const all = [...refused, ...result.refused];
  const classes = new Set(pictures.map(({ label }) => label)).size;
  summary.textContent = `${result.ids.length} of ${pictures.length + refused.length} files became references, of ${classes} classes; ${result.known ? `${result.known} were references of their class already; ` : ""}${all.length} refused.`;
  place.replaceChildren(...(all.length ? [listRefused(all)] : []));
  next.hidden = !result.ids.length;
  if (!result.ids.length) return;
  const takeAway = changer(gallery, result.ids);
  const undo = async () => {
    await takeAway();
    summary.textContent = "The import was undone.";
    next.hidden = true;
  };
  say(`${result.ids.length} references imported.`, { undo });
}

/** Do one import at a time. */
async function alone(findEntries) {
  if (isBusy) {
    say("An import is under way: wait for its end.");
    return;
  }
  isBusy = true;
  try {
    await importPictures(await findEntries());
  } catch (error) {
    if (error.constructor === Error) say(error.message, { isBad: true });
    else sayProblem(error);
  } finally {
    isBusy = false;
  }
}

function take(field, use) {
  field.addEventListener("change", () => {
    const files = [...field.files];
    field.value = "";
    if (files.length) use(files);
  });
}

showBrokenImport(gallery, (work) => {
  if (isBusy) return say("An import is under way: wait for its end.");
  return work();
});
take(document.getElementById("folder"), (files) => alone(async () => {
  const own = files.find((file) => pathOf(file) === tableName);
  return own ? entriesOfTable(await own.text(), files) : entriesOfFolder(files);
}));
take(document.getElementById("table"), ([file]) => {
  table = file;
  document.getElementById("table-name").textContent = file.name;
});
take(document.getElementById("pictures"), (files) => {
  if (table) alone(async () => entriesOfTable(await table.text(), files));
  else say("Choose the CSV file first.", { isBad: true });
});
