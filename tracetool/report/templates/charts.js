// The pictures: each a function of the model and of what is selected, to `data` and `layout` of plotly.

const CLEAR = "rgba(0,0,0,0)";
const DECISIONS = {
  copy: { symbol: "square", colour: "var(--copy)" },
  "early-copy": { symbol: "diamond", colour: "var(--early)" },
  unshare: { symbol: "triangle-up", colour: "var(--unshare)" },
  reuse: { symbol: "circle-open", colour: "var(--reuse)" },
  "zero-fill": { symbol: "cross-thin-open", colour: "var(--soft)" },
  split: { symbol: "star", colour: "var(--unshare)" },
  undetermined: { symbol: "x-thin-open", colour: "var(--soft)" },
};
const COPIES = ["copy", "early-copy", "unshare"];
const NEEDED = ["another-mapping", "a reference of another process", "not-anonymous", "pinned-at-fork"];
const INCIDENTAL = ["swap-cache", "lru-batch", "ksm", "lock", "unmapping", "large-page", "a reference of its own"];

const lines = () => ({ showgrid: true, gridcolor: "var(--line)", zeroline: false, ticks: "outside", tickcolor: "var(--line)", automargin: true });

function layout(height, more) {
  return {
    template: "none", height, margin: { l: 60, r: 14, t: 10, b: 44 }, showlegend: true, hovermode: "closest", dragmode: false,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 13 }, traceorder: "normal" },
    paper_bgcolor: CLEAR, plot_bgcolor: CLEAR, font: { color: "var(--ink)", family: "system-ui, sans-serif", size: 13 },
    hoverlabel: { bgcolor: "var(--paper)", bordercolor: "var(--ink)", font: { color: "var(--ink)" }, align: "left" },
    modebar: { bgcolor: CLEAR, color: "var(--soft)", activecolor: "var(--ink)" },
    ...more,
  };
}

// Of few things there are no halves.
const whole = (most) => (most < 8 ? { dtick: 1 } : {});

function timeAxis(model) {
  const spare = model.end / 100;
  return { ...lines(), title: { text: `${model.unit} since the trace began` }, range: [-spare, model.end + spare], hoverformat: ".3f" };
}

// Why a picture is empty.
const nothing = (text) => [{ text, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 14 } }];

// The selected stretch of time, as a band that follows the selection in every picture over time.
function band(selection, model) {
  if (selection.from === null && selection.to === null) return [];
  const [x0, x1] = [selection.from ?? 0, selection.to ?? model.end];
  return [{ type: "rect", xref: "x", yref: "paper", x0, x1, y0: 0, y1: 1, layer: "below", fillcolor: "var(--focus)", opacity: 0.16, line: { width: 0 } }];
}

const OVER_TIME = { dragmode: "select", selectdirection: "h", newselection: { line: { color: "var(--focus)", width: 1 } }, selections: [] };

// Whether a point belongs to what is selected, but for the policy.
function within(selection, points, i) {
  const t = points.t[i];
  return (selection.from === null || t >= selection.from) && (selection.to === null || t <= selection.to)
    && (selection.process === null || points.p[i] === selection.process)
    && (!selection.page || !points.v || (points.v[i] <= selection.page.high && points.w[i] >= selection.page.low));
}

const restricted = (selection) => selection.from !== null || selection.to !== null || selection.process !== null || Boolean(selection.page);

// --- address by time ---

// Addresses on an axis without the stretches where nothing happens: regions, each as high as the root of its pages.
function regions(points, names) {
  const pages = [...new Set([...points.v, ...points.w])].sort((a, b) => a - b);
  const found = [];
  for (let gap = 64; ; gap *= 8) {
    found.length = 0;
    pages.forEach((page) => {
      const last = found[found.length - 1];
      if (last && page - last.high <= gap) last.high = page;
      else found.push({ low: page, high: page });
    });
    if (found.length <= 24) break;
  }
  let top = 0;
  found.forEach((region) => {
    region.bottom = top;
    region.height = 2 + Math.sqrt(region.high - region.low + 1);
    top += region.height;
  });
  // What kind of memory a region is: that of most of its points.
  found.forEach((region) => { region.areas = new Map(); });
  points.v.forEach((page, i) => {
    const { areas } = found[indexIn(found, page)];
    areas.set(points.a[i], (areas.get(points.a[i]) ?? 0) + 1);
  });
  found.forEach((region) => { region.area = names[[...region.areas].sort((a, b) => b[1] - a[1])[0]?.[0]] ?? ""; });
  const total = top || 1;
  found.forEach((region) => { region.bottom /= total; region.height /= total; });
  return found;
}

function indexIn(found, page) {
  let [low, high] = [0, found.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (found[middle].low <= page) low = middle; else high = middle - 1;
  }
  return low;
}

function placeIn(found) {
  return (page) => {
    const region = found[indexIn(found, page)];
    return region.bottom + region.height * (0.1 + 0.8 * ((page - region.low + 0.5) / (region.high - region.low + 1)));
  };
}

function mapChart(model, selection, { narrow }) {
  const points = model.points[model.replays[selection.policy].points];
  const found = points.t.length ? regions(points, model.areas) : [];
  const place = placeIn(found);
  const chosen = restricted(selection);
  const data = model.decisions.map((decision, d) => {
    const rows = points.t.flatMap((_, i) => (points.d[i] === d ? [i] : []));
    const look = DECISIONS[decision] ?? DECISIONS.undetermined;
    return {
      type: "scatter", mode: "markers", name: escaped(decision), meta: decision, customdata: rows,
      x: rows.map((i) => points.t[i]), y: rows.map((i) => place(points.v[i])),
      text: rows.map((i) => {
        const many = points.f[i] > 1 ? `<br>${counted(points.f[i], "decision")} here, to ${hexadecimal(points.w[i])}` : "";
        return `${escaped(model.processes[points.p[i]])}<br>${decision} (${escaped(because(model, model.reasons[points.r[i]]))})<br>${hexadecimal(points.v[i])}${many}`;
      }),
      hovertemplate: "%{text}<br>%{x} " + model.unit + "<extra></extra>",
      marker: { symbol: look.symbol, color: look.colour, size: 8, opacity: 1, line: { width: /open$/.test(look.symbol) ? 1.6 : 0, color: look.colour } },
      ...(chosen ? { selectedpoints: rows.flatMap((i, at) => (within(selection, points, i) ? [at] : [])) } : {}),
      selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 0.12 } },
    };
  }).filter((trace) => trace.x.length);
  const forks = model.forks.from.slice(0, 100).map((x) => (
    { type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, layer: "below", line: { color: "var(--soft)", width: 1, dash: "dot" } }));
  const walls = found.slice(1).map((region) => (
    { type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: region.bottom, y1: region.bottom, layer: "below", line: { color: "var(--line)", width: 1 } }));
  const named = found.filter((region) => region.height > 0.035);
  return {
    data,
    layout: layout(narrow ? 380 : 460, {
      ...OVER_TIME, shapes: [...walls, ...forks, ...band(selection, model)], xaxis: timeAxis(model),
      yaxis: {
        ...lines(), showgrid: false, range: [0, 1], tickfont: { family: "ui-monospace, monospace", size: 11 },
        tickvals: named.map((region) => region.bottom + region.height / 2),
        ticktext: named.map((region) => `${escaped(region.area)}${narrow ? "" : ` ${hexadecimal(region.low)}`}`),
      },
    }),
  };
}

// --- page frames over time ---

function memoryChart(model, selection, { narrow }) {
  const own = model.replays[selection.policy].memory;
  const series = model.memory[own];
  const end = (values) => (values.length ? [...values, values[values.length - 1]] : values);
  const t = series.t.length ? [...series.t, model.end] : [];
  const area = (name, kind, shape) => ({
    type: "scatter", mode: "lines", stackgroup: "kept", name, x: t, y: end(series[kind]),
    line: { shape: "hv", width: 1, color: `var(--kept-${kind})` }, fillcolor: `var(--kept-${kind})`,
    ...(shape ? { fillpattern: { shape, bgcolor: `var(--kept-${kind})`, fgcolor: "var(--ink)", fgopacity: 0.55, size: 8, solidity: 0.15 } } : {}),
    hovertemplate: `%{y} ${name}<br>%{x} ${model.unit}<extra></extra>`,
  });
  const others = model.memory.flatMap((other, n) => {
    const names = model.replays.filter((replay) => replay.memory === n).map((replay) => replay.name);
    if (n === own || !names.length) return [];
    const all = other.t.map((_, i) => other.once[i] + other.shared[i] + other.referenced[i]);
    const label = names.length > 2 && narrow ? `${names[0]} and ${names.length - 1} more` : names.join(", ");
    return [{
      type: "scatter", mode: "lines", name: `all under ${escaped(label)}`, x: [...other.t, model.end], y: end(all),
      line: { shape: "hv", width: 1.6, dash: ["dash", "dot", "dashdot", "longdash"][n % 4], color: "var(--ink)" },
      hovertemplate: `%{y} in all under ${escaped(names.join(", "))}<br>%{x} ${model.unit}<extra></extra>`,
    }];
  });
  return {
    data: [area("one mapping", "once"), area("several mappings", "shared", "/"), area("a reference alone", "referenced", "x"), ...others],
    layout: layout(narrow ? 340 : 360, {
      ...OVER_TIME, shapes: band(selection, model), xaxis: timeAxis(model),
      yaxis: { ...lines(), rangemode: "tozero", title: { text: "page frames" } }, hovermode: "x",
    }),
  };
}

// --- copies by reason ---

const because = (model, reason) => model.because[reason] ?? reason;

function reasonColour(reason) {
  const [needed, incidental] = [NEEDED.indexOf(reason), INCIDENTAL.indexOf(reason)];
  if (needed >= 0) return `var(--needed-${needed})`;
  return incidental >= 0 ? `var(--incidental-${incidental % 4})` : "var(--unknown)";
}

function reasonsChart(model, selection, { narrow }) {
  const copies = new Set(COPIES.map((name) => model.decisions.indexOf(name)));
  const sums = model.replays.map((replay) => {
    const points = model.points[replay.points];
    const sum = model.reasons.map(() => 0);
    points.t.forEach((_, i) => { if (copies.has(points.d[i]) && within(selection, points, i)) sum[points.r[i]] += points.n[i]; });
    return sum;
  });
  const names = model.replays.map((replay) => escaped(replay.name));
  const order = [...NEEDED, ...INCIDENTAL];
  const rank = (reason) => (order.includes(reason) ? order.indexOf(reason) : order.length);
  const data = model.reasons.map((reason, r) => ({ reason, y: sums.map((sum) => sum[r]) }))
    .filter(({ y }) => y.some((n) => n))
    .sort((a, b) => rank(a.reason) - rank(b.reason))
    .map(({ reason, y }) => ({
      type: "bar", orientation: "h", name: escaped(because(model, reason)), y: names, x: y,
      marker: {
        color: reasonColour(reason), line: { color: "var(--ink)", width: 0.6 },
        ...(INCIDENTAL.includes(reason) ? { pattern: { shape: "/", fillmode: "overlay", fgcolor: "var(--ink)", fgopacity: 0.7, solidity: 0.2, size: 7 } } : {}),
      },
      hovertemplate: `%{x}: ${escaped(because(model, reason))}<br>%{y}<extra></extra>`,
    }));
  const totals = sums.map((sum) => sum.reduce((a, b) => a + b, 0));
  return {
    data: data.length ? data : [{ type: "bar", orientation: "h", y: names, x: names.map(() => 0), showlegend: false }],
    layout: layout((narrow ? 170 : 150) + 34 * names.length, {
      barmode: "stack", bargap: 0.35,
      xaxis: { ...lines(), ...whole(Math.max(...totals)), rangemode: "tozero", title: { text: "pages copied" }, range: [0, Math.max(...totals, 1) * (narrow ? 1.3 : 1.15)] },
      yaxis: {
        automargin: true, autorange: "reversed", ticks: "",
        tickvals: names, ticktext: names.map((name, n) => (n === selection.policy ? `<b>▸ ${name}</b>` : name)),
      },
      annotations: !data.length ? nothing(restricted(selection) ? "no copies in the selection" : "no copies in this trace") : totals.map((total, n) => (
        { x: total, y: names[n], text: `<b>${total.toLocaleString("en")}</b>`, showarrow: false, xanchor: "left", xshift: 4, font: { size: 13 } })),
    }),
  };
}

// --- how long faults take ---

// Decades, and 2 and 5 in between where there are few.
function ticksOf(data, narrow) {
  const x = data.flatMap((trace) => trace.x);
  if (!x.length) return {};
  const [low, high] = [Math.floor(Math.log10(Math.min(...x))), Math.ceil(Math.log10(Math.max(...x)))];
  const within = high - low > (narrow ? 3 : 4) ? [1] : [1, 2, 5];
  return { tickvals: Array.from({ length: high - low + 1 }, (_, n) => within.map((each) => each * 10 ** (low + n))).flat() };
}

function timesChart(model, selection, { narrow }) {
  const { times } = model;
  const counts = model.decisions.map(() => new Map());
  times.t.forEach((_, i) => {
    if (within({ ...selection, page: null }, times, i)) counts[times.d[i]].set(times.b[i], (counts[times.d[i]].get(times.b[i]) ?? 0) + times.f[i]);
  });
  const edge = (bin) => 10 ** (bin / times.bins) / 1000;
  const dashes = { copy: "solid", reuse: "dash", "zero-fill": "dot" };
  const data = counts.flatMap((bins, d) => {
    if (!bins.size) return [];
    const [low, high] = [Math.min(...bins.keys()), Math.max(...bins.keys())];
    const x = [edge(low)];
    const y = [0];
    for (let bin = low; bin <= high; bin += 1) { x.push(edge(bin)); y.push(bins.get(bin) ?? 0); }
    x.push(edge(high + 1)); y.push(0);
    const look = DECISIONS[model.decisions[d]] ?? DECISIONS.undetermined;
    return [{
      type: "scatter", mode: "lines", name: model.decisions[d], x, y, fill: "tozeroy", opacity: 0.9,
      line: { shape: "hv", width: 2.2, color: look.colour, dash: dashes[model.decisions[d]] ?? "dashdot" },
      hovertemplate: `%{y} ${model.decisions[d]}, from %{x:.3~g} µs<extra></extra>`,
    }];
  });
  const empty = nothing(times.t.length ? "none in the selection" : "no COW fault has both its ends in the trace");
  return {
    data: data.length ? data : [{ type: "scatter", mode: "lines", x: [1, 100], y: [0, 0], showlegend: false, line: { width: 0 } }],
    layout: layout(narrow ? 320 : 340, {
      xaxis: { ...lines(), type: "log", title: { text: "µs" }, tickformat: "~g", ...ticksOf(data, narrow) },
      yaxis: { ...lines(), ...whole(Math.max(...data.flatMap(({ y }) => y), 0)), rangemode: "tozero", title: { text: "faults" } },
      annotations: data.length ? [] : empty,
    }),
  };
}

// --- forks ---

function forksChart(model, selection, { narrow }) {
  const { forks } = model;
  const copied = model.replays[selection.policy].forks;
  const parts = [["parent_copies", "by the parent"], ["child_copies", "by the child"], ["early_copies", "early, by fork"], ["child_zero_fills", "child's zero-fills"]];
  const rows = forks.from.map((_, i) => i);
  const label = (i) => `${forks.parent[i]} → ${forks.child[i]}`;
  const all = rows.map((i) => parts.reduce((sum, [part]) => sum + (copied[part][i] ?? 0), 0));
  const chosen = rows.map((i) => {
    const [begin, end] = [forks.from[i], forks.to[i] ?? model.end];
    const pid = selection.process === null ? null : model.pids[selection.process];
    return (selection.from === null || end >= selection.from) && (selection.to === null || begin <= selection.to) && (pid === null || forks.pids[i].includes(pid));
  });
  const step = rows.length > 40 ? 12 : 24;
  return {
    data: [{
      type: "bar", orientation: "h", showlegend: false, y: rows, base: rows.map((i) => forks.from[i]),
      x: rows.map((i) => Math.max((forks.to[i] ?? model.end) - forks.from[i], model.end / 500)),
      marker: { color: "var(--copy)", line: { color: "var(--ink)", width: 1 }, opacity: chosen.map((is) => (is ? 0.9 : 0.15)) },
      hovertext: rows.map((i) => [
        escaped(label(i)), `shares ${counted(forks.shared[i], "page")}`,
        ...parts.map(([part, words]) => `${(copied[part][i] ?? 0).toLocaleString("en")} copied ${words}`.replace("copied child's", "of the child's")),
        forks.to[i] === null ? "the child is there to the end" : "",
      ].filter(Boolean).join("<br>")),
      hoverinfo: "text",
    }],
    layout: layout(Math.min(Math.max(rows.length * step, 60) + 70, 1200), {
      ...OVER_TIME, dragmode: "select", shapes: band(selection, model), xaxis: timeAxis(model), bargap: 0.3,
      yaxis: {
        automargin: true, autorange: "reversed", zeroline: false, showgrid: false, ticks: "",
        tickvals: rows.length > 40 ? [] : rows, ticktext: rows.map((i) => (narrow ? escaped(forks.child[i]) : escaped(label(i)))),
      },
      annotations: rows.length > 60 ? [] : !rows.length ? nothing("no fork in this trace") : rows.map((i) => (
        { x: forks.from[i] > model.end * 0.7 ? forks.from[i] : forks.to[i] ?? model.end, y: i, text: counted(all[i], "page"), showarrow: false,
          xanchor: forks.from[i] > model.end * 0.7 || (forks.to[i] ?? model.end) > model.end * 0.85 ? "right" : "left", xshift: forks.from[i] > model.end * 0.7 ? -4 : 4, font: { size: 12 } })),
    }),
  };
}

const CHARTS = { map: mapChart, memory: memoryChart, reasons: reasonsChart, times: timesChart, forks: forksChart };
