// Begins everything: tables at once, pictures as soon as they are unpacked.

const buttons = [["pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
const overTime = [["select2d", "zoom2d", "pan2d", "resetScale2d"]];
const narrow = (plot) => plot.clientWidth < 600 * (parseFloat(getComputedStyle(document.documentElement).fontSize) / 16);
const printing = () => "print" in document.documentElement.dataset;

function drawn(plot, figure, modeBarButtons, anew = false) {
  const { data, layout } = resolved(figure, getComputedStyle(document.documentElement));
  if (printing()) layout.width = Math.min(plot.clientWidth, 660);
  // Told to change, plotly keeps no text where a picture with other marks had none; it forgets that only when it begins anew.
  return window.Plotly[anew ? "newPlot" : "react"](plot, data, layout, { displaylogo: false, modeBarButtons, responsive: !printing() });
}

// Leaves out the words that would lie over the one before them.
function spaced(trace, [left, right], width) {
  const last = new Map();
  const letter = 0.6 * trace.textfont.size * (parseFloat(getComputedStyle(document.documentElement).fontSize) / 16);
  trace.text = trace.text.map((text, i) => {
    const half = (text.length * letter) / 2;
    const x = ((trace.x[i] - left) / (right - left)) * width;
    if (x - half < (last.get(trace.y[i]) ?? -Infinity)) return "";
    last.set(trace.y[i], x + half + letter);
    return text;
  });
}

function lineage(model, plot) {
  const story = storyOf(model);
  const figure = structuredClone(model.families.figures[story.figures[selection.spacing]]);
  figure.data.filter((trace) => trace.meta === "words").forEach((trace) => spaced(trace, figure.layout.xaxis.range, plot.clientWidth));
  return drawn(plot, figure, buttons, true);
}

function picksTime(plot) {
  plot.on("plotly_selected", (event) => {
    const range = event?.range?.x;
    if (range) select({ from: Math.max(Math.min(...range), 0), to: Math.max(...range) });
  });
}

function picksPoints(model) {
  find("#plot-map").on("plotly_click", ({ points: [point] }) => {
    const points = model.points[model.replays[selection.policy].points];
    const i = point.customdata;
    const page = { low: points.v[i], high: points.w[i] };
    const pid = model.pids[points.p[i]] ?? null;
    select({ page, pid, ...familyOf(model, page, pid) });
  });
  find("#plot-reasons").on("plotly_click", ({ points: [point] }) => select({ policy: point.pointNumber }));
  find("#plot-forks").on("plotly_click", ({ points: [point] }) => {
    const i = point.pointNumber;
    const process = model.pids.indexOf(model.forks.pids[i][1]);
    select({ process: process < 0 ? null : process, from: model.forks.from[i], to: model.forks.to[i] });
  });
  ["#plot-map", "#plot-memory", "#plot-forks"].forEach((name) => picksTime(find(name)));
}

async function pictures() {
  const status = find("#plot-status");
  const bundle = unpacked("bundle");
  const model = JSON.parse(await unpacked("model"));
  const charts = model.replays ? Object.entries(CHARTS).map(([name, chart]) => [find(`#plot-${name}`), chart]) : [];
  const plot = model.families.all.length ? find("#plot") : null;
  model.policies = (model.replays ?? model.families.all[0].stories).map((each) => each.name ?? each.policy);
  if (plot) {
    const [first] = model.families.all;
    selection.policy = Math.max(model.policies.indexOf(first.stories[first.shown].policy), 0);
    selection.spacing = first.spacing;
  }
  if (model.replays) {
    selectionForm(model, model.policies);
    pickable(model, model.policies);
    followFindings(model, model.policies);
  }
  if (plot) {
    storyForm(model);
    find(".stories").classList.add("told-above");
    find("#told").hidden = plot.hidden = false;
  }
  if (status) status.textContent = "Drawing…";
  select({});

  const script = document.createElement("script");
  script.textContent = await bundle;
  document.head.append(script);
  const draws = [
    ...(plot ? [() => lineage(model, plot)] : []),
    ...charts.map(([element, chart]) => () => drawn(element, chart(model, selection, { narrow: narrow(element) }), chart === reasonsChart || chart === timesChart ? buttons : overTime)),
  ];
  const drawAll = () => draws.forEach((draw) => draw());
  for (const draw of draws) {
    await draw();
    if (status) status.hidden = true;
    await breath();
  }
  if (charts.length) picksPoints(model);
  // Many changes in one go are one drawing.
  let waiting = false;
  followers.push(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; drawAll(); });
  });
  follow(drawAll);
}

function follow(drawAll) {
  const width = () => document.documentElement.clientWidth;
  let [last, timer] = [width(), 0];
  window.addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { if (width() !== last && !printing()) { last = width(); drawAll(); } }, 150);
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => { document.documentElement.dataset.print = ""; drawAll(); });
  window.addEventListener("afterprint", () => { delete document.documentElement.dataset.print; drawAll(); });
}

// A picture whose table is open takes the whole width.
findAll(".grid .numbers").forEach((table) => table.addEventListener("toggle", () => window.dispatchEvent(new Event("resize"))));
filter.begin();
findAll("table.sortable, table.findings").forEach(sortable);
if (find("#model")) {
  pictures().then(
    () => { document.documentElement.dataset.drawn = ""; },
    (error) => {
      findAll("#plot-status").forEach((status) => {
        status.hidden = false;
        status.textContent = `The pictures could not be drawn (${error.message}); the steps and tables say the same in words.`;
      });
      document.documentElement.dataset.failed = error.message;
    },
  );
}
