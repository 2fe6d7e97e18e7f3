"use strict";
(() => {
  const $ = (selector, from = document) => Array.from(from.querySelectorAll(selector));

  // --- the picture ---

  const figures = document.getElementById("figures");
  const plot = document.getElementById("plot");
  const status = document.getElementById("plot-status");
  const drawings = figures ? JSON.parse(figures.textContent) : [];
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

  // plotly knows no CSS variables: each `var(--x)` becomes its value of this moment, and sizes follow the text of the document.
  const sizes = new Set(["size", "height", "l", "r", "t", "b"]);
  function resolved(value, style, key = "") {
    if (typeof value === "string") {
      const found = /^var\((--[\w-]+)\)$/.exec(value);
      return found ? style.getPropertyValue(found[1]).trim() : value;
    }
    if (typeof value === "number") return sizes.has(key) ? value * (parseFloat(style.fontSize) / 16) : value;
    if (Array.isArray(value)) return value.map((each) => resolved(each, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, resolved(each, style, name)]));
    }
    return value;
  }

  const buttons = [["pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];

  function draw() {
    if (!window.Plotly) return undefined;
    const figure = resolved(drawings[chosen("policy")][chosen("spacing")], getComputedStyle(document.documentElement));
    const wide = plot.clientWidth >= 600;
    figure.data.forEach((trace) => { if (trace.meta === "words") trace.visible = wide; });
    return window.Plotly.react(plot, figure.data, figure.layout, { displaylogo: false, modeBarButtons: buttons, responsive: true });
  }

  function choose() {
    $(".story").forEach((story) => { story.hidden = story.dataset.story !== chosen("policy"); });
    draw();
  }

  async function unpack() {
    const packed = Uint8Array.from(atob(document.getElementById("bundle").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  function follow() {
    let wide = plot.clientWidth >= 600;
    window.addEventListener("resize", () => {
      if (wide !== (plot.clientWidth >= 600)) { wide = !wide; draw(); }
    });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    window.addEventListener("beforeprint", () => { document.documentElement.dataset.print = ""; draw(); });
    window.addEventListener("afterprint", () => { delete document.documentElement.dataset.print; draw(); });
  }

  if (drawings.length) {
    $(".controls").forEach((each) => { each.hidden = false; });
    $(".controls input").forEach((each) => each.addEventListener("change", choose));
    choose();
    status.textContent = "Drawing…";
    unpack().then(draw).then(() => { status.hidden = true; follow(); }, (error) => {
      status.textContent = `The picture could not be drawn (${error.message}); the steps say the same in words.`;
    });
  }

  // --- tables ---

  function key(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  }

  function compare(a, b) {
    // What is not known comes last.
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  function sort(table, header) {
    const down = header.getAttribute("aria-sort") === "ascending";
    const body = table.tBodies[0];
    const rows = Array.from(body.rows).sort((a, b) => {
      const [x, y] = [key(a, header.cellIndex), key(b, header.cellIndex)];
      return down && x !== null && y !== null ? compare(y, x) : compare(x, y);
    });
    $("th[aria-sort]", table.tHead).forEach((each) => each.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  }

  $("table.sortable").forEach((table) => {
    Array.from(table.tHead.rows[0].cells).forEach((header) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      button.addEventListener("click", () => sort(table, header));
      header.replaceChildren(button);
    });
  });

  $("input[data-filters]").forEach((input) => {
    const rows = Array.from(document.getElementById(input.dataset.filters).tBodies[0].rows);
    const count = document.querySelector(`[data-counts="${input.dataset.filters}"]`);
    const whole = count.textContent;
    input.closest("p").hidden = false;
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      rows.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = wanted ? `Showing ${shown} of ${rows.length} rows.` : whole;
    });
  });
})();
