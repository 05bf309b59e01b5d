// The roofline: every timed case under what its machine was measured to do, a panel for each number of threads.

const SYMBOLS = { float32: "circle", float64: "square", bfloat16: "diamond", float16: "triangle-up" };
const PALETTE = ["s0", "s1", "s2", "s3", "s4", "s5"];
let rooflineBy = "verdict";

figures.roofline = (box) => {
  const inside = shown().filter((one) => one.cache === "warm" && one.record.gflops && one.record.bytes);
  const groups = roofs(inside);
  if (!groups.length) {
    say(box, cases.length ? "Nothing that is chosen was timed with warm caches on a machine whose roof was measured: " : "No case was timed: ", command("kernelwright bench quick"), " measures both.");
    return;
  }
  if (window.Plotly)
    choice(box, "colour by", [["verdict", "verdict"], ["kernel", "kernel"], ["family", "family"], ["op", "op"]], rooflineBy, (value) => { rooflineBy = value; drawn.delete(box); draw(box); });
  const paints = rooflineBy === "verdict" ? null : paintsOf(groups.flatMap(([, , here]) => here), rooflineBy);
  const grid = panels(box);
  for (const [roof, threads, here, origin] of groups) rooflinePanel(grid, roof, threads, here, paints, groups.some(([, , , o]) => o !== origin) ? origin : "");
  if (!window.Plotly) return;
  const dtypes = [...new Set(inside.map((one) => one.dtype))];
  legend(box, paints ? [...paints].map(([name, c]) => [name, c]) : [...VERDICT_LEGEND(), ["no rival or disturbed", colour("even")]]);
  if (dtypes.length > 1) say(box, dtypes.map((d) => `${{ circle: "●", square: "■", diamond: "◆", "triangle-up": "▲" }[SYMBOLS[d] ?? "circle"]} ${d}`).join("   "));
};

// [roof, threads, cases, origin]: one for each origin and number of threads, with the newest roof measured there.
function roofs(inside) {
  const found = new Map();
  for (const one of inside) {
    const roof = one.document.roof;
    if (!roof?.fma?.[one.threads]?.[one.dtype]) continue;
    const key = `${one.origin}|${one.threads}`;
    const entry = found.get(key) ?? [roof, one.threads, [], one.origin];
    if (roof.measured_at > entry[0].measured_at) entry[0] = roof;
    entry[2].push(one);
    found.set(key, entry);
  }
  return [...found.values()].sort((a, b) => a[3].localeCompare(b[3]) || a[1] - b[1]);
}

// A colour for each of the commonest values; the rest share one.
function paintsOf(inside, facet) {
  const counts = new Map();
  for (const one of inside) counts.set(one[facet], (counts.get(one[facet]) ?? 0) + 1);
  const names = [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const paints = new Map(names.slice(0, PALETTE.length).map((name, n) => [name, colour(PALETTE[n])]));
  if (names.length > PALETTE.length) paints.set("others", colour("s6"));
  return paints;
}

function rooflinePanel(grid, roof, threads, here, paints, origin) {
  const peaks = Object.entries(roof.fma[threads]).filter(([dtype]) => here.some((one) => one.dtype === dtype)).map(([dtype, rate]) => [dtype, rate / 1e9]);
  const levels = Object.entries(roof.read[threads]).map(([size, rate]) => [Number(size), rate / 1e9]).sort((a, b) => b[1] - a[1]);
  const xs = here.map((one) => one.record.flops / one.record.bytes), ys = here.map((one) => one.record.gflops);
  const top = Math.max(...peaks.map(([, rate]) => rate));
  const x1 = Math.max(...xs, (top / levels.at(-1)[1]) * 2) * 1.6;
  // Left of the first knee there must be room for the names of the levels: this share of the width.
  const share = narrow() ? 0.29 : 0.3, knee = top / levels[0][1];
  const x0 = Math.min(Math.min(...xs, 0.5) / 1.6, (knee / x1 ** share) ** (1 / (1 - share)));
  const y0 = Math.min(...ys, top / 30) / 1.7, y1 = Math.max(top, ...ys) * 1.9;
  const roofLine = (points, name) => ({
    type: "scatter", mode: "lines", x: points.map(([x]) => x), y: points.map(([, y]) => y), line: { color: colour("faint"), width: 1.4 }, hovertemplate: `${name}<extra></extra>`,
  });
  const traces = levels.map(([size, rate]) => roofLine([[Math.max(x0, y0 / rate), Math.max(y0, x0 * rate)], [top / rate, top]], `${write.digits(rate)} GB/s from ${write.bytes(size)} a thread`));
  for (const [dtype, rate] of peaks) traces.push(roofLine([[Math.max(x0, rate / levels[0][1]), rate], [x1, rate]], `${dtype}: ${write.digits(rate)} GFLOP/s`));
  traces.push({
    type: "scatter", mode: "markers", x: xs, y: ys, customdata: here.map((one) => one.number), hovertemplate: "%{text}<extra></extra>",
    text: here.map((one) => `${hover(one)}<br>${write.percent(one.record.roof_share)} of its roof${one.record.bound ? ` (${one.record.bound})` : ""}`),
    marker: {
      size: here.length > 200 ? 6 : 8, symbol: here.map((one) => SYMBOLS[one.dtype] ?? "triangle-up"), opacity: 0.8, line: { width: 0.8, color: colour("bg") },
      color: here.map((one) => (paints ? paints.get(one[rooflineBy]) ?? colour("s6") : verdictColour(one.verdict))),
    },
  });
  const height = narrow() ? 360 : 430;
  plot(grid, {
    title: write.threads(threads) + (origin ? `, ${origin}` : ""), height, traces,
    label: `Roofline of ${write.threads(threads)}: ${here.length} cases; ${peaks.map(([d, r]) => `${d} ${write.digits(r)} GFLOP/s`).join(", ")}`,
    layout: {
      xaxis: { type: "log", range: [Math.log10(x0), Math.log10(x1)], title: { text: "FLOP per byte" }, ...powers(x0, x1, narrow() ? 5 : 10) },
      yaxis: { type: "log", range: [Math.log10(y0), Math.log10(y1)], title: { text: "GFLOP/s" }, ...decades(y0, y1) },
      annotations: [...levelLabels(levels, y0, y1, top, height), ...peakLabels(peaks, x1, y0, y1, height)],
    },
  });
}

const labelOf = (text, x, y, more) => ({ x: Math.log10(x), y: Math.log10(y), text, showarrow: false, font: { size: 11, color: colour("soft") }, bgcolor: colour("bg"), borderpad: 1, opacity: 0.92, ...more });

// Left of each memory level's line, where nothing of that level can lie: from the knee downwards.
function levelLabels(levels, y0, y1, top, height) {
  const pixel = (y1 / y0) ** (1 / (height - 80));
  let y = top / pixel ** 12;
  return levels.map(([size, rate]) => {
    const words = `${write.digits(rate)} GB/s${narrow() ? "" : `, ${write.bytes(size)}`}`;
    const label = labelOf(words, (y / rate) / 1.06, y, { xanchor: "right" });
    y /= pixel ** 17;
    return label;
  });
}

function peakLabels(peaks, x1, y0, y1, height) {
  const perPixel = Math.log10(y1 / y0) / (height - 80);
  return peaks.map(([dtype, rate]) => labelOf(`${dtype} ${write.digits(rate)} GFLOP/s`, x1 / 1.04, rate * 10 ** (10 * perPixel), { xanchor: "right" }));
}

function powers(low, high, most) {
  const first = Math.ceil(Math.log2(low)), last = Math.floor(Math.log2(high));
  const step = Math.max(1, Math.ceil((last - first + 1) / most));
  const tickvals = [];
  for (let n = first; n <= last; n += step) tickvals.push(2 ** n);
  return { tickvals, ticktext: tickvals.map((x) => (x < 1 ? `1/${1 / x}` : String(x))) };
}

function decades(low, high) {
  const wide = Math.log10(high / low) > 3.2;
  const tickvals = [];
  for (let n = Math.floor(Math.log10(low)); n <= Math.ceil(Math.log10(high)); n++)
    for (const factor of wide ? [1] : [1, 2, 5]) if (factor * 10 ** n >= low && factor * 10 ** n <= high) tickvals.push(factor * 10 ** n);
  return { tickvals, ticktext: tickvals.map((x) => String(+x.toPrecision(2))) };
}
