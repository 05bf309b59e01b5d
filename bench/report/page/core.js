"use strict";
// The page's one source: the embedded results. Here: what is in them, how figures are written, what is
// chosen, and the address that keeps it.

const report = JSON.parse(document.getElementById("report").textContent);
const EXTRA = JSON.parse(document.getElementById("missing").textContent);
const cases = report.cases.map((facets, number) => {
  const document_ = report.documents[facets.run];
  const record = document_.results[facets.index];
  const race = record.races.find((each) => each.baseline === record.headline) ?? null;
  const words = [facets.name, facets.group, facets.op, facets.dtype, facets.kernel, record.headline ?? ""];
  return { ...facets, number, document: document_, record, race, words: words.join(" ").toLowerCase() };
});

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const has = (value) => value !== null && value !== undefined;

// An element; attributes by name, `on...` listeners, children as nodes or text. Nothing is ever parsed as HTML.
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && has(value)) node.setAttribute(name, value);
  }
  node.append(...children.filter(has));
  return node;
}

// Figures as bench/report/text.py writes them.
const DASH = "–";
const write = {
  digits: (v) => (v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2)),
  number: (v) => (has(v) ? write.digits(v) : DASH),
  percent: (v) => (has(v) ? `${(100 * v).toFixed(0)}%` : DASH),
  error: (v) => (has(v) ? v.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2") : DASH),
  interval: (low, high) => `${low.toFixed(2)}${DASH}${high.toFixed(2)}`,
  seconds: (v) => {
    if (!has(v)) return DASH;
    for (const [unit, scale] of [["s", 1], ["ms", 1e-3], ["µs", 1e-6]])
      if (v >= scale) return `${write.digits(v / scale)} ${unit}`;
    return `${write.digits(v / 1e-9)} ns`;
  },
  bytes: (n) => {
    for (const [unit, scale] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]])
      if (n >= scale) return `${+(n / scale).toPrecision(3)} ${unit}`;
    return `${n} B`;
  },
  threads: (n) => (+n === 1 ? "1 thread" : `${n} threads`),
  plural: (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`,
  // As Python writes it, so that a reader can copy it: stride=(1, 1).
  config: (config) => Object.entries(config).map(([k, v]) => `${k}=${python(v)}`).join(" "),
  flops: (n) => {
    for (const [unit, scale] of [["GFLOP", 1e9], ["MFLOP", 1e6], ["kFLOP", 1e3]])
      if (n >= scale) return `${write.digits(n / scale)} ${unit}`;
    return `${n} FLOP`;
  },
};
const VERDICTS = {
  ahead: "ahead", even: "too close to call", behind: "behind", disturbed: "disturbed by other load", alone: "no rival",
  checked: "checked", wrong: "wrong", suspect: "not to be believed", refused: "would prove nothing", failed: "failed", unsupported: "unsupported",
};

function python(value) {
  if (Array.isArray(value)) return `(${value.map(python).join(", ")}${value.length === 1 ? "," : ""})`;
  return value === null ? "None" : value === true ? "True" : value === false ? "False" : String(value);
}

function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (value && typeof value === "object") return Object.entries(value).map(([k, v]) => `${k}: ${plain(v)}`).join("; ");
  if (typeof value === "number" && !Number.isInteger(value)) return String(+value.toPrecision(4));
  return String(value);
}

// What is chosen. Filters of WHOLE also choose what the means are of; the others pick rows only.
const WHOLE = ["family", "op", "dtype", "device", "threads", "cache", "origin"];
const PICKS = ["kernel", "verdict"];
const chosen = { filters: {}, text: "", sort: "", open: new Set(), section: "" };

const equal = (one, name) => !chosen.filters[name] || String(one[name]) === chosen.filters[name];
const inWhole = (one) => WHOLE.every((name) => equal(one, name));
function visible(one) {
  if (!inWhole(one) || !PICKS.every((name) => equal(one, name))) return false;
  return chosen.text.toLowerCase().split(/\s+/).every((word) => one.words.includes(word));
}
const shown = () => cases.filter(visible);

// The address: #op=conv&threads=2&text=resnet&sort=ratio:down&open=3,7 ; #roofline alone is a section.
function readAddress() {
  const hash = decodeURIComponent(location.hash.slice(1).replace(/\+/g, " "));
  if (hash && !hash.includes("=")) return document.getElementById(hash)?.scrollIntoView();
  const words = new URLSearchParams(location.hash.slice(1));
  chosen.filters = {};
  for (const name of [...WHOLE, ...PICKS]) if (words.get(name)) chosen.filters[name] = words.get(name);
  chosen.text = words.get("text") ?? "";
  chosen.sort = words.get("sort") ?? "";
  chosen.open = new Set((words.get("open") ?? "").split(",").filter(Boolean).map(Number));
  chosen.section = words.get("section") ?? "";
}

function writeAddress() {
  const words = new URLSearchParams(chosen.filters);
  if (chosen.text) words.set("text", chosen.text);
  if (chosen.sort) words.set("sort", chosen.sort);
  if (chosen.open.size) words.set("open", [...chosen.open].join(","));
  const hash = words.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

// Light, dark, or as the system says; kept for the reader's next page where the browser keeps anything.
function paint(theme) {
  document.documentElement.toggleAttribute("data-theme", Boolean(theme));
  if (theme) document.documentElement.dataset.theme = theme;
  const button = $(".theme");
  button.textContent = theme || "auto";
  button.setAttribute("aria-label", `colours: ${theme || "as the system says"}; press for the next`);
}
function remembered(theme) {
  try {
    if (theme === undefined) return localStorage.getItem("kernelwright-theme") ?? "";
    localStorage.setItem("kernelwright-theme", theme);
  } catch { /* pages from files may not keep anything */ }
  return theme ?? "";
}
function nextTheme() {
  const now = document.documentElement.dataset.theme ?? "";
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  // The first press must change something: from the system's colours to the other ones.
  const order = dark ? ["", "light", "dark"] : ["", "dark", "light"];
  const next = order[(order.indexOf(now) + 1) % 3];
  paint(next);
  remembered(next);
  redraw();
}
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const verdictColour = (verdict) =>
  colour({ ahead: "ahead", behind: "behind", wrong: "behind", suspect: "behind", refused: "behind", failed: "behind" }[verdict] ?? "even");

function tell(words) {
  const tip = $(".tip");
  tip.textContent = words;
  tip.classList.add("on");
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => tip.classList.remove("on"), 1600);
}
