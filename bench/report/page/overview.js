// The overview under the filters: a mean of which only a part of the cases is chosen is worked out again.

const rows = report.rows;

function overview() {
  const opened = new Set($$("tr.family .open[aria-expanded=true]").map((b) => familyKey(rows[b.closest("tr").dataset.row])));
  for (const node of $$("[data-row]")) {
    const row = rows[node.dataset.row];
    const part = row.cases.map((n) => cases[n]).filter(inWhole);
    node.hidden = !part.length || (row.level === "group" && !opened.has(familyKey(row)));
    if (part.length) fillRow(node, row, part.length === row.cases.length ? null : part);
  }
}

const familyKey = (row) => [row.origin, row.family, row.threads, row.cache, row.asked].join("|");

// The row's own figures for all its cases, or those of a part of them.
function fillRow(node, row, part) {
  const inside = part ?? row.cases.map((n) => cases[n]);
  const logs = inside.map((one) => Math.log(one.race.ratio));
  const ratio = part ? Math.exp(mean(logs)) : row.ratio;
  const [low, high] = part ? bootstrap(inside) : [row.low, row.high];
  const kind = low > 1 ? "ahead" : high < 1 ? "behind" : "even";
  const count = (verdict) => inside.filter((one) => one.verdict === verdict).length;
  const put = (key, words) => { const cell = $(`[data-k="${CSS.escape(key)}"]`, node); if (cell) cell.textContent = words; };
  put("interval", write.interval(low, high));
  if (node.matches(".tile")) {
    node.className = `tile ${kind}`;
    put("ratio", ratio.toFixed(2));
    put("cases", write.plural(inside.length, "case"));
    put("counts", `${count("ahead")} ahead, ${count("even")} even, ${count("behind")} behind`);
    put("each", Object.entries(versus(inside)).map(([name, value]) => `${value.toFixed(2)} against ${name}`).join(", "));
    return;
  }
  const cell = $('[data-k="ratio"]', node);
  cell.dataset.v = String(ratio);
  cell.replaceChildren(el("b", { class: kind }, ratio.toFixed(2)));
  put("cases", String(inside.length));
  put("ahead", write.percent(count("ahead") / inside.length));
  put("lost", String(count("behind")));
  place($(".strip", node), ratio, low, high, kind);
  const worst = inside.reduce((a, b) => (b.race.ratio < a.race.ratio ? b : a));
  const link = $('[data-k="worst"] button', node);
  Object.assign(link.dataset, { open: worst.number });
  Object.assign(link, { title: worst.name, textContent: worst.race.ratio.toFixed(2) });
  const shares = inside.map((one) => one.record.roof_share);
  put("at_roof", shares.every(Boolean) ? write.number(Math.exp(mean(logs.map((x, n) => x - Math.log(Math.min(shares[n], 1)))))) : DASH);
  const means = versus(inside);
  for (const vendor of $$('[data-k^="vs "]', node)) vendor.textContent = write.number(means[vendor.dataset.k.slice(3)] ?? null);
}

// The mean against each vendor that ran all of these cases undisturbed (noisy: at most a quarter of the pairs).
function versus(inside) {
  const ratios = {};
  for (const one of inside)
    for (const race of one.record.races)
      if (race.verdict !== "disturbed") (ratios[race.baseline] ??= []).push(Math.log(race.ratio));
  const whole = Object.entries(ratios).filter(([, logs]) => logs.length === inside.length).sort();
  return Object.fromEntries(whole.map(([name, logs]) => [name, Math.exp(mean(logs))]));
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

function place(strip, ratio, low, high, kind) {
  const span = Math.log(Number(getComputedStyle(strip).getPropertyValue("--reach")));
  const percent = (x) => 50 + 50 * Math.max(-1, Math.min(1, Math.log(x) / span));
  for (const [name, value] of [["--v", ratio], ["--l", low], ["--h", high]]) strip.style.setProperty(name, percent(value).toFixed(2));
  strip.className = `strip ${kind}`;
  strip.setAttribute("aria-label", `ratio ${ratio.toFixed(3)}, 95% interval ${write.interval(low, high)}`);
}

// As compare/intervals.py's group_interval: the pairs of each case drawn again, the cases kept. Fewer draws
// where there are many cases, whose mean moves little.
function bootstrap(inside) {
  const draws = Math.round(Math.max(200, Math.min(2000, 2e5 / inside.length)));
  const means = new Float64Array(draws);
  const random = generator(inside.length);
  for (const one of inside) {
    const { ours, theirs } = one.race;
    const logs = ours.map((x, n) => Math.log(theirs[n] / x));
    const again = new Float64Array(logs.length);
    for (let d = 0; d < draws; d++) {
      for (let n = 0; n < again.length; n++) again[n] = logs[Math.floor(random() * logs.length)];
      again.sort();
      const half = again.length >> 1;
      means[d] += (again.length % 2 ? again[half] : (again[half - 1] + again[half]) / 2) / inside.length;
    }
  }
  means.sort();
  const at = (q) => means[Math.min(draws - 1, Math.round(q * (draws - 1)))];
  return [Math.exp(at(0.025)), Math.exp(at(0.975))];
}

// mulberry32 of T. Ettinger, in the public domain: the same draws each time, so the same page.
function generator(seed) {
  let state = seed + 0x6d2b79f5;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function overviewEvents() {
  for (const button of $$("tr.family .open"))
    button.addEventListener("click", () => {
      button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") !== "true"));
      overview();
    });
}
