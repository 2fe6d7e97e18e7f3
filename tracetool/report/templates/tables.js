// Tables: sort by any column, filter the findings. A table body is a row (and what opens beneath it), or holds all rows.

function key(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.sort ?? cell.textContent.trim();
  const number = Number(text);
  return text === "" ? null : Number.isNaN(number) ? text : number;
}

function compared(a, b) {
  // What is not known comes last.
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function sort(table, header) {
  const down = header.getAttribute("aria-sort") === "ascending";
  const parts = table.tBodies.length > 1 || table.classList.contains("findings") ? Array.from(table.tBodies) : Array.from(table.tBodies[0].rows);
  const keys = new Map(parts.map((part) => [part, key(part.rows ? part.rows[0] : part, header.cellIndex)]));
  parts.sort((one, other) => {
    const [a, b] = [keys.get(one), keys.get(other)];
    return down && a !== null && b !== null ? compared(b, a) : compared(a, b);
  });
  findAll("th[aria-sort]", table.tHead).forEach((each) => each.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  (parts[0]?.rows ? table : table.tBodies[0]).append(...parts);
}

function sortable(table) {
  if (!table.tBodies.length || (table.tBodies.length === 1 && table.tBodies[0].rows.length < 2)) return;
  Array.from(table.tHead.rows[0].cells).forEach((header) => {
    const button = make("button", header.textContent, { type: "button" });
    button.addEventListener("click", () => sort(table, header));
    header.replaceChildren(button);
  });
}

// What a row of the findings has: one rule, one kind, one or more policies.
const valuesOf = (row, name) => (name === "policy" ? JSON.parse(row.dataset.policies) : [row.dataset[name]]);

const filter = {
  form: find("#filter"),
  rows: findAll("#findings-table tbody"),
  selected: () => true, // of a row: whether it belongs to what is selected

  begin() {
    if (!this.form) return;
    this.status = find("#shown");
    this.whole = this.status.textContent;
    this.texts = new Map(this.rows.map((row) => [row, row.textContent.toLowerCase()]));
    ["rule", "policy", "kind"].forEach((name) => {
      const values = [...new Set(this.rows.flatMap((row) => valuesOf(row, name)))];
      this.form.elements[name].append(...values.map((value) => make("option", value, { value })));
    });
    this.form.hidden = false;
    this.form.addEventListener("input", () => this.apply());
    this.form.addEventListener("submit", (event) => event.preventDefault());
  },

  apply() {
    if (!this.form) return;
    const { text, rule, policy, kind } = this.form.elements;
    const wanted = text.value.trim().toLowerCase();
    let shown = 0;
    this.rows.forEach((row) => {
      const alike = [["rule", rule], ["policy", policy], ["kind", kind]].every(([name, field]) => !field.value || valuesOf(row, name).includes(field.value));
      row.hidden = !(alike && this.selected(row) && this.texts.get(row).includes(wanted));
      shown += !row.hidden;
    });
    this.status.textContent = shown === this.rows.length ? this.whole : `Showing ${shown} of ${counted(this.rows.length, "row")}.`;
  },
};
