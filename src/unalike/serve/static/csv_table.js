// Tables in CSV (RFC 4180), with commas or, as spreadsheets of some countries write them, semicolons.

const ESCAPED_FORMULA = /^'+[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]/;
const NUMBER = /^\s*[+-]?(inf(inity)?|nan|(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[+-]?\d[\d_]*)?)\s*$/i;

/**
 * A cell as it was before a `'` was put in front of it, so that no spreadsheet takes it for a formula (`sanitize.from_csv_cell`).
 * @param {string} text
 * @returns {string}
 */
function plainCell(text) {
  return ESCAPED_FORMULA.test(text) && !NUMBER.test(text.slice(1)) ? text.slice(1) : text;
}

/**
 * Read a table.
 * @param {string} text
 * @returns {string[][]} its lines, the empty ones left out
 */
export function parseTable(text) {
  const content = text.replace(/^\uFEFF/, "");
  const head = content.split(/\r?\n/, 1)[0];
  const separator = head.includes(";") && !head.includes(",") ? ";" : ",";
  const lines = [];
  let line = [];
  let value = "";
  let isQuoted = false;
  const endLine = () => {
    line.push(plainCell(value));
    if (line.length > 1 || line[0] !== "") lines.push(line);
    line = [];
    value = "";
  };
  for (let place = 0; place < content.length; place += 1) {
    const sign = content[place];
    if (isQuoted) {
      if (sign !== '"') value += sign;
      else if (content[place + 1] === '"') {
        value += '"';
        place += 1;
      } else isQuoted = false;
    } else if (sign === '"' && value === "") isQuoted = true;
    else if (sign === separator) {
      line.push(plainCell(value));
      value = "";
    } else if (sign === "\n") endLine();
    else if (sign !== "\r" || content[place + 1] !== "\n") value += sign;
  }
  endLine();
  return lines;
}
