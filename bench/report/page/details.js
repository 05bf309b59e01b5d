// What is behind a row's figures: how to repeat it, what ran, how right it was, each race, the environment.

function sheet(one) {
  const { record, document: doc } = one;
  return el("div", {},
    reproduce(record.reproduce),
    el("div", { class: "sheet" },
      el("div", {}, el("h4", {}, "What ran"), facts(whatRan(one))),
      el("div", {}, el("h4", {}, "Accuracy, relative to the norm"), facts(accuracy(record)), notRaced(record))),
    races(record),
    environment(doc));
}

function reproduce(command) {
  if (!command) return null;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(command);
      tell("copied");
    } catch { // without permission: select it, so that the reader's own keys copy it
      getSelection().selectAllChildren(code);
      tell("selected: copy it with Ctrl+C");
    }
  };
  const code = el("code", {}, command);
  return el("div", { class: "repro" }, code, el("button", { type: "button", class: "copy", onclick: copy }, "copy"));
}

function facts(pairs) {
  const list = el("dl");
  for (const [name, value] of pairs)
    if (has(value) && value !== "") list.append(el("dt", {}, name), el("dd", {}, String(value)));
  return list;
}

function whatRan({ record, origin, device }) {
  const { problem } = record;
  const shapes = problem.inputs.filter(has).map(
    (o) => o.shape.join("×") + (o.transposed ? " transposed" : "") + (o.packed ? " packed" : ""));
  return [
    ["Message", record.message],
    ["Problem", `${problem.op} of ${shapes.join(", ")}`],
    ["Attributes", write.config(problem.attrs)],
    ["Source", problem.source],
    ["Note", problem.note],
    ["Kernel", record.kernel],
    ["Configuration", write.config(record.config)],
    ["Why this one", record.why],
    ["Fell back", record.fallback],
    ["First call", has(record.first_call_s) ? write.seconds(record.first_call_s) : ""],
    ["of it", once(record)],
    ["Tuned", record.tuned ? "chosen by a measured time" : ""],
    ["Work", `${write.flops(record.flops)}, ${write.bytes(record.bytes)}`],
    ["Bound by", record.bound ? `${record.bound}; the roof is ${write.seconds(record.roof_s)}` : ""],
    ["Cold caches", record.cache_note],
    ["Where", `${origin}; ${device}`],
  ];
}

function once({ compiled, compile_s, loaded, load_s }) {
  const parts = [];
  if (compiled) parts.push(`${write.seconds(compile_s)} compiling ${write.plural(compiled, "function")}`);
  if (loaded) parts.push(`${write.seconds(load_s)} loading ${write.plural(loaded, "function")}`);
  return parts.join(", ");
}

function accuracy(record) {
  const used = has(record.error) && record.budget ? `, ${write.percent(record.error / record.budget)} of what is allowed` : "";
  const vendors = record.races.filter((r) => has(r.error)).map((r) => [r.baseline, write.error(r.error)]);
  return [["Ours", `${write.error(record.error)}${used}`], ...vendors, ["Allowed", write.error(record.budget)]];
}

function notRaced(record) {
  const entries = Object.entries(record.not_raced ?? {});
  return entries.length ? el("div", {}, el("h4", {}, "Not raced"), facts(entries)) : null;
}

const RACE_COLUMNS = [
  ["Vendor", "", (r) => r.baseline],
  ["Ratio", "num", (r) => r.ratio.toFixed(3)],
  ["95%", "num", (r) => write.interval(r.low, r.high)],
  ["Ours", "num", (r) => write.seconds(r.ours_s)],
  ["Theirs", "num", (r) => write.seconds(r.theirs_s)],
  ["Pairs", "num", (r) => String(r.ours.length)],
  ["Spread", "num pairs", (r) => `±${(100 * spread(r)).toFixed(1)}%`],
  ["Repeated", "pairs", (r) => Object.entries(r.rejected).map(([why, n]) => `${n} ${why}`).join(", ") || "none"],
  ["Noisy", "num pairs", (r) => String(r.noisy)],
  ["Verified", "num pairs", (r) => String(r.verified[0] + r.verified[1])],
];

function races(record) {
  if (!record.races.length) return null;
  const head = el("tr", {}, ...RACE_COLUMNS.map(([name, css]) => el("th", { scope: "col", class: css }, name)));
  head.append(el("th", { scope: "col", class: "pairs" }, "Each pair's ratio, in turn"));
  const rows = record.races.map((race) => {
    const row = el("tr", {}, ...RACE_COLUMNS.map(([, css, cell]) => el("td", { class: css }, cell(race))));
    row.append(el("td", { class: "pairs" }, pairs(race)));
    return row;
  });
  return el("div", {}, el("h4", {}, "Races"), el("table", { class: "races" }, el("thead", {}, head), el("tbody", {}, ...rows)));
}

// The median distance of the pairs' log ratios from their median: how far a single pair may be off.
function spread(race) {
  const logs = race.ours.map((ours, n) => Math.log(race.theirs[n] / ours));
  const middle = median(logs);
  return median(logs.map((x) => Math.abs(x - middle)));
}

function median(values) {
  const ordered = [...values].sort((a, b) => a - b), half = ordered.length >> 1;
  return ordered.length % 2 ? ordered[half] : (ordered[half - 1] + ordered[half]) / 2;
}

function pairs(race) {
  const logs = race.ours.map((ours, n) => Math.log(race.theirs[n] / ours));
  const reach = Math.max(0.05, ...logs.map(Math.abs));
  const NS = "http" + "://www.w3.org/2000/svg"; // the name of a language, not an address
  const svg = document.createElementNS(NS, "svg");
  const width = Math.max(60, logs.length * 7);
  svg.setAttribute("viewBox", `0 0 ${width} 28`);
  svg.setAttribute("width", width);
  svg.setAttribute("height", 28);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${logs.length} pairs, from ${Math.exp(Math.min(...logs)).toFixed(2)} to ${Math.exp(Math.max(...logs)).toFixed(2)}`);
  const add = (tag, attributes) => {
    const node = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    svg.append(node);
  };
  add("line", { x1: 0, x2: width, y1: 14, y2: 14, style: "stroke: var(--one)" });
  logs.forEach((x, n) => add("circle", { cx: 4 + n * 7, cy: 14 - (11 * x) / reach, r: 2.2, style: `fill: var(--${x < 0 ? "behind" : "ahead"})` }));
  return svg;
}

function environment(doc) {
  const lines = [];
  for (const [name, part] of [["Machine", doc.machine], ["Versions", doc.versions], ["Vendors", doc.baselines], ["Variables", doc.environment], ["Commit", doc.git]])
    lines.push([name, plain(part ?? {})]);
  lines.push(["Measured", `${doc.started}, by ${doc.command || "unknown"}`]);
  return el("details", {}, el("summary", {}, "Environment"), facts(lines));
}
