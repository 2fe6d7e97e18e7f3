// What is selected, the form that says and changes it, and the story of the page that belongs to it.

const STANDINGS = { clean: "✔ safe", defect: "✖ unsafe", inconclusive: "▲ not settled" };
const CLASSES = { clean: "clean", defect: "defect", inconclusive: "doubt" };
const selection = { policy: 0, process: null, from: null, to: null, page: null, pid: null, family: 0, spacing: "time" };

// One place where everything that follows the selection is told of it.
const followers = [];
function select(change) {
  Object.assign(selection, change);
  if (selection.from !== null && selection.to !== null && selection.from > selection.to) {
    [selection.from, selection.to] = [selection.to, selection.from];
  }
  followers.forEach((follow) => follow());
}

const everything = { process: null, from: null, to: null, page: null, pid: null };

function chosenText(model) {
  const told = [];
  if (selection.process !== null) told.push(model.processes[selection.process]);
  if (selection.from !== null || selection.to !== null) {
    const at = (t, none) => (t === null ? none : t.toLocaleString("en", { maximumFractionDigits: 3 }));
    told.push(`${at(selection.from, "start")} to ${at(selection.to, "end")} ${model.unit}`);
  }
  if (selection.page) {
    const { low, high } = selection.page;
    told.push(low === high ? `page ${hexadecimal(low)}` : `pages ${hexadecimal(low)} to ${hexadecimal(high)}`);
  }
  return told.join(", ");
}

function pageOf(text) {
  try {
    const page = Number(BigInt(text.trim()) / 4096n);
    return text.trim() && page >= 0 ? { low: page, high: page } : null;
  } catch { return null; }
}

// --- the form ---

function selectionForm(model, policies) {
  const form = find("#selection");
  const fields = form.elements;
  const clear = fields.clear;
  fields.process.append(make("option", "all", { value: "" }), ...model.processes.map((name, n) => make("option", name, { value: n })));
  findAll(".unit", form).forEach((unit) => { unit.textContent = model.unit; });
  const number = (field) => (field.value === "" || Number.isNaN(field.valueAsNumber) ? null : field.valueAsNumber);
  const read = () => {
    const page = pageOf(fields.page.value);
    select({
      policy: fields.policy.selectedIndex, process: fields.process.value === "" ? null : Number(fields.process.value),
      from: number(fields.from), to: number(fields.to), page, pid: null, ...familyOf(model, page),
    });
  };
  form.addEventListener("change", read);
  form.addEventListener("submit", (event) => { event.preventDefault(); read(); });
  fields.apply.addEventListener("click", read);
  clear.addEventListener("click", () => select(everything));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") select(everything); });
  followers.push(() => {
    fields.policy.selectedIndex = selection.policy;
    fields.process.value = selection.process ?? "";
    fields.from.value = selection.from ?? "";
    fields.to.value = selection.to ?? "";
    fields.page.value = selection.page ? hexadecimal(selection.page.low) : "";
    const told = chosenText(model);
    find("#selected").textContent = `Selected: ${told || "everything"}; policy ${policies[selection.policy]}`;
    clear.hidden = !told;
  });
  form.hidden = false;
}

// Cells that pick: their text becomes a button.
function picksOf(cell, model, policies) {
  const { pickPolicy, pickPid, pickFrom, pickTo, pickV } = cell.dataset;
  const change = {};
  if (pickPolicy !== undefined && policies.includes(pickPolicy)) change.policy = policies.indexOf(pickPolicy);
  if (pickPid !== undefined && model.pids.includes(Number(pickPid))) change.process = model.pids.indexOf(Number(pickPid));
  if (pickFrom !== undefined) Object.assign(change, { from: Number(pickFrom) / model.scale, to: Number(pickTo) / model.scale });
  if (pickV !== undefined) change.page = pageOf(pickV);
  return change;
}

function pickable(model, policies) {
  findAll("[data-pick-policy], [data-pick-pid], [data-pick-from], [data-pick-v]").forEach((cell) => {
    if (!Object.keys(picksOf(cell, model, policies)).length) return;
    const button = make("button", cell.textContent, { type: "button", class: "pick" });
    button.addEventListener("click", () => {
      const change = picksOf(cell, model, policies);
      select({ ...change, ...(change.page ? familyOf(model, change.page) : {}) });
    });
    cell.replaceChildren(button);
  });
}

// --- findings ---

function followFindings(model, policies) {
  filter.selected = (row) => {
    const { from, to, low, high, pids } = row.dataset;
    const begin = from === "" ? null : Number(from) / model.scale;
    const end = to === "" ? begin : Number(to) / model.scale;
    const pid = selection.process === null ? null : model.pids[selection.process];
    return (selection.from === null || begin === null || end >= selection.from) && (selection.to === null || begin === null || begin <= selection.to)
      && (pid === null || pid === undefined || pids.split(" ").includes(String(pid)))
      && (!selection.page || (low !== "" && Number(low) <= selection.page.high && Number(high) >= selection.page.low));
  };
  followers.push(() => filter.apply());
  findAll("button[data-picks]").forEach((button) => {
    const row = button.closest("tbody").dataset;
    button.hidden = false;
    button.addEventListener("click", () => {
      const page = row.low === "" ? null : { low: Number(row.low), high: Number(row.high) };
      const [begin, end] = [row.from, row.to || row.from].map((t) => (t === "" ? null : Number(t) / model.scale));
      const spare = begin === null ? 0 : Math.max((end - begin) * 0.5, model.end / 500);
      const family = model.families.all.findIndex((each) => each.findings.includes(row.id));
      select({
        ...everything, page, policy: Math.max(policies.indexOf(JSON.parse(row.policies)[0]), 0),
        from: begin === null ? null : Math.max(begin - spare, 0), to: begin === null ? null : Math.min(end + spare, model.end),
        ...(family >= 0 ? { family } : familyOf(model, page)),
      });
      find(family >= 0 ? "#lineage" : "#map").scrollIntoView({ block: "start" });
    });
  });
}

// --- the story of a page ---

// The told family of a page: of its finding, if there is one.
function familyOf(model, page, pid = null) {
  if (!page) return {};
  const found = model.families.all.map((family, n) => [family, n]).filter(([family]) => (
    family.v >= page.low && family.v <= page.high && (pid === null || family.pids.includes(pid))));
  const best = found.find(([family]) => family.findings.length && family.stories.some((story) => story.policy === policyName(model))) ?? found[0];
  return best ? { family: best[1] } : {};
}

const policyName = (model) => model.policies[selection.policy];

// The story of the selected policy; else the one that the family shows first.
function storyOf(model) {
  const family = model.families.all[selection.family];
  return family.stories.find((story) => story.policy === policyName(model)) ?? family.stories[family.shown];
}

function coloured(text, colours) {
  return text.split(/\b(P\d+)\b/).map((part) => (
    part in colours ? make("span", part, { class: `page page-${colours[part]}` }) : document.createTextNode(part)));
}

function toldStory(story) {
  const heading = make("h4", `${story.policy}: `);
  heading.append(make("span", STANDINGS[story.standing], { class: `badge ${CLASSES[story.standing]}` }));
  const steps = make("ol", "", { class: "steps" });
  steps.append(...story.steps.map((step) => {
    const item = make("li", "", step.danger ? { class: "unsafe" } : {});
    item.append(make("span", step.at, { class: "at" }), " ", ...coloured(step.text, story.colours));
    if (step.danger) item.append(" ", make("span", `✖ unsafe from here: ${step.danger}`, { class: "badge defect" }));
    if (step.parts) item.append(" ", make("span", "↪ not as observed", { class: "badge info" }));
    return item;
  }));
  const pages = make("p", "", { class: "pages" });
  story.pages.forEach(([page, what], n) => pages.append(n ? "; " : "", ...coloured(page, story.colours), ` ${what}`));
  const found = [heading, make("p", story.outcome, { class: `outcome ${CLASSES[story.standing]}` }), steps, pages];
  return story.left_out ? [...found, make("p", `Here and in the picture: ${story.left_out}.`)] : found;
}

function radio(name, value, text, checked) {
  const label = make("label");
  const input = make("input", "", { type: "radio", name, value });
  input.checked = checked;
  label.append(input, " ", make("span", text));
  return label;
}

function storyForm(model) {
  const controls = find(".controls");
  const choice = find('select[name="family"]', controls);
  const policies = find("#story-policies");
  choice.append(...model.families.all.map((family, n) => make("option", family.label, { value: n })));
  choice.addEventListener("change", () => {
    const family = model.families.all[Number(choice.value)];
    const policy = model.policies.indexOf(family.stories[family.shown].policy);
    select({ family: Number(choice.value), spacing: family.spacing, ...(family.findings.length ? { policy: Math.max(policy, 0) } : {}) });
  });
  let [shown, told] = [-1, null];
  followers.push(() => {
    const family = model.families.all[selection.family];
    const story = storyOf(model);
    if (shown !== selection.family) {
      if (shown >= 0) selection.spacing = family.spacing;
      shown = selection.family;
      choice.value = shown;
      policies.replaceChildren(make("legend", "Policy"), ...family.stories.map((each) => (
        radio("policy", model.policies.indexOf(each.policy), `${each.policy} ${STANDINGS[each.standing]}`, false))));
    }
    findAll("input", policies).forEach((input) => { input.checked = model.policies[Number(input.value)] === story.policy; });
    findAll('input[name="spacing"]', controls).forEach((input) => { input.checked = input.value === selection.spacing; });
    find("#family").textContent = `Address ${family.address}; ${family.who}.${untold(model)}`;
    if (told !== story) find("#told").replaceChildren(...toldStory(story));
    told = story;
  });
  controls.addEventListener("change", (event) => {
    if (event.target.name === "policy") select({ policy: Number(event.target.value) });
    if (event.target.name === "spacing") select({ spacing: event.target.value });
  });
  controls.hidden = false;
}

// What to do for the story of a page that is not in the file.
function untold(model) {
  const family = model.families.all[selection.family];
  const { page } = selection;
  if (!page || (family.v >= page.low && family.v <= page.high && (selection.pid === null || family.pids.includes(selection.pid)))) return "";
  return ` The selected page ${hexadecimal(page.low)} is not told in this file: tracetool history TRACE --pid PID --address ${hexadecimal(page.low)}.`;
}
