// The pictures: drawn with plotly when they come near the window, and again when what they show changes.

const figures = {}; // name: draw(box), which fills the box or says in a sentence why it is empty
const drawn = new WeakSet();
const waiting = [];
let watcher = null;

function redraw() {
  for (const box of $$(".figure")) {
    drawn.delete(box);
    watcher.unobserve(box);
    watcher.observe(box); // observing anew tells at once whether it is near
  }
}

function watchFigures() {
  watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) draw(target);
  }, { rootMargin: "500px 0px" });
  let theme = "";
  window.addEventListener("beforeprint", () => { // paper is white, and takes every row and picture
    theme = document.documentElement.dataset.theme ?? "";
    paint("light");
    all = true;
    applyFilters();
    redraw();
    drawAll();
  });
  window.addEventListener("afterprint", () => { paint(theme); redraw(); });
}

const drawAll = () => $$(".figure").forEach(draw);

function draw(box) {
  if (drawn.has(box)) return;
  drawn.add(box);
  if (window.Plotly) for (const plot of $$(".js-plotly-plot", box)) Plotly.purge(plot);
  box.replaceChildren();
  figures[box.dataset.figure](box);
  for (const paint_ of waiting.splice(0)) paint_(); // now that every panel is there and has its width
}

function say(box, ...words) {
  box.append(el("p", { class: "none" }, ...words));
}

const command = (words) => el("code", {}, words);
const narrow = () => window.innerWidth < 700;

// One plot in a figure of its own; without plotly the line that says how to get it, once a section.
function plot(box, { title, note, traces, layout, height = 380, label }) {
  if (!window.Plotly) {
    if (!$(".missing", box.closest("section")))
      box.closest(".figure").append(el("p", { class: "missing" }, "The picture that belongs here is drawn with plotly: ", command(EXTRA), " before the page is made."));
    return;
  }
  const target = el("div", { class: "plot", role: "img", "aria-label": label ?? title, style: `height: ${height}px` });
  const caption = title ? el("figcaption", {}, title, note ? el("small", {}, note) : "") : "";
  box.append(el("figure", {}, caption, target));
  const font = { family: getComputedStyle(document.body).fontFamily, size: narrow() ? 12 : 13, color: colour("soft") };
  const axis = { gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, fixedrange: narrow(), tickfont: { size: 12 }, title: { standoff: 8 } };
  const { xaxis, yaxis, ...rest } = layout;
  const whole = {
    font, height, margin: { l: narrow() ? 56 : 66, r: 14, t: 12, b: 50 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    hovermode: "closest", hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { ...font, color: colour("ink"), size: 13 }, align: "left" },
    dragmode: narrow() ? false : "zoom", ...rest,
    xaxis: { ...axis, ...xaxis, title: { ...axis.title, ...xaxis?.title } }, yaxis: { ...axis, ...yaxis, title: { ...axis.title, ...yaxis?.title } },
  };
  const config = { responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover", modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
  waiting.push(() => {
    Plotly.newPlot(target, traces, whole, config);
    target.on("plotly_click", ({ points: [point] }) => {
      if (has(point?.customdata)) show(Number(point.customdata));
    });
  });
}

// A row of plots side by side where there is room.
function panels(box) {
  const grid = el("div", { class: "panels" });
  box.append(grid);
  return grid;
}

function legend(box, entries) {
  box.append(el("ul", { class: "legend" }, ...entries.map(([name, c, kind]) => el("li", {}, el("i", { class: kind, style: `--c: ${c}` }), name))));
}

// A choice above a picture that draws it again.
function choice(box, name, options, value, onchange) {
  const select = el("select", { onchange: ({ target }) => onchange(target.value) });
  for (const [key, words] of options) select.append(el("option", { value: key, selected: key === value }, words));
  let line = $(".choice", box);
  if (!line) box.append((line = el("div", { class: "choice" })));
  line.append(el("label", {}, `${name} `, select));
}

// A logarithmic axis of ratios, with round ticks, around 1.
function ratioAxis(values, title) {
  const inside = values.filter((x) => x > 0 && Number.isFinite(x));
  const reach = [Math.min(0.8, ...inside) / 1.08, Math.max(1.25, ...inside) * 1.08];
  const [low, high] = [Math.max(reach[0], 1 / 64), Math.min(reach[1], 64)];
  const wide = high / low > 6;
  const ticks = (wide ? [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32] : [0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 2, 2.5, 3]).filter((x) => x >= low && x <= high);
  return { type: "log", range: [Math.log10(low), Math.log10(high)], tickvals: ticks, ticktext: ticks.map((x) => String(+x.toPrecision(3))), title: { text: title } };
}

const line = (axis, at, name = "one", dash = "solid") =>
  ({ type: "line", [`${axis}0`]: at, [`${axis}1`]: at, [`${axis === "x" ? "y" : "x"}ref`]: "paper", [axis === "x" ? "y0" : "x0"]: 0, [axis === "x" ? "y1" : "x1"]: 1, line: { color: colour(name), width: 1.2, dash }, layer: "below" });

const hover = (one) => [
  `<b>${one.name}</b>`,
  `${write.threads(one.threads)}, ${one.cache}, ${one.kernel}`,
  ...(one.race ? [`${one.race.ratio.toFixed(2)} (${write.interval(one.race.low, one.race.high)}) against ${one.race.baseline}`] : [VERDICTS[one.verdict]]),
  `${write.seconds(one.record.seconds)}, ${write.number(one.record.gflops)} GFLOP/s`,
].map((words) => (words.startsWith("<b>") ? words : words.replaceAll("<", "&lt;"))).join("<br>");

const counted = (one) => one.race && one.verdict !== "disturbed";
const VERDICT_LEGEND = () => [["ahead", colour("ahead")], ["too close to call", colour("even")], ["behind", colour("behind")]];

// The spread of the ratios within each family (within each group, where there is one family).
figures.families = (box) => {
  const inside = cases.filter((one) => inWhole(one) && counted(one));
  if (inside.length < 2) return;
  const families = [...new Set(inside.map((one) => one.family))];
  const level = families.length > 1 ? "family" : "group";
  const settings = [...new Set(inside.map((one) => `${one.threads}|${one.cache}`))].sort((a, b) => cold(a) - cold(b) || parseInt(a) - parseInt(b));
  const grid = panels(box), most = narrow() ? 16 : 28;
  for (const setting of settings) {
    const here = inside.filter((one) => `${one.threads}|${one.cache}` === setting);
    const names = [...new Set(here.map((one) => one[level]))];
    const logMean = (name) => mean(here.filter((one) => one[level] === name).map((one) => Math.log(one.race.ratio)));
    names.sort((a, b) => logMean(b) - logMean(a)); // the worst on top
    const place_ = new Map(names.map((name, n) => [name, n]));
    const jitter = generator(7);
    const dots = {
      type: "scatter", mode: "markers", x: here.map((one) => one.race.ratio), y: here.map((one) => place_.get(one[level]) + (jitter() - 0.5) * 0.5),
      text: here.map(hover), hovertemplate: "%{text}<extra></extra>", customdata: here.map((one) => one.number),
      marker: { color: here.map((one) => verdictColour(one.verdict)), size: here.length > 300 ? 5 : 7, opacity: here.length > 300 ? 0.4 : 0.6 },
    };
    const means = {
      type: "scatter", mode: "markers", x: names.map((name) => Math.exp(logMean(name))), y: names.map((_, n) => n),
      text: names.map((name) => `<b>${name}</b><br>geometric mean ${Math.exp(logMean(name)).toFixed(2)}`), hovertemplate: "%{text}<extra></extra>",
      marker: { symbol: "diamond", size: 12, color: colour("ink"), line: { color: colour("bg"), width: 1.5 } },
    };
    const [threads, cache] = setting.split("|");
    plot(grid, {
      title: `${write.threads(threads)}${cache === "cold" ? ", cold caches" : ""}`,
      label: `Ratios by ${level}, ${write.threads(threads)}: ${names.map((n) => `${n} ${Math.exp(logMean(n)).toFixed(2)}`).join(", ")}`,
      traces: [dots, means], height: 74 + 36 * names.length,
      layout: {
        margin: { l: 14 + 7 * Math.max(...names.map((name) => shorten(name, most).length)), r: 14, t: 8, b: 46 },
        xaxis: ratioAxis(dots.x, "the fastest vendor's time / ours"),
        yaxis: { tickvals: names.map((_, n) => n), ticktext: names.map((name) => shorten(name, most)), range: [-0.6, names.length - 0.4], showgrid: false },
        shapes: [line("x", 1)],
      },
    });
  }
  if (window.Plotly) legend(box, [...VERDICT_LEGEND(), ["geometric mean", colour("ink"), "diamond"]]);
};

const cold = (setting) => setting.endsWith("cold");
const shorten = (name, most) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);

// Every ratio with its interval, from the worst to the best.
figures.ratios = (box) => {
  const inside = shown().filter(counted).sort((a, b) => a.race.ratio - b.race.ratio);
  if (inside.length < 3) return;
  const x = inside.map((_, n) => n + 1), many = inside.length > 300;
  const ratios = inside.map((one) => one.race.ratio);
  const traces = [];
  if (many) {
    traces.push({
      type: "scatter", mode: "lines", hoverinfo: "skip", fill: "toself", line: { width: 0 }, fillcolor: colour("line"),
      x: [...x, ...[...x].reverse()], y: [...inside.map((one) => one.race.low), ...inside.map((one) => one.race.high).reverse()],
    });
  }
  for (const verdict of ["ahead", "even", "behind"]) {
    const part = inside.map((one, n) => [one, n]).filter(([one]) => one.verdict === verdict);
    const c = verdictColour(verdict);
    traces.push({
      type: "scatter", mode: "markers", x: part.map(([, n]) => n + 1), y: part.map(([one]) => one.race.ratio), text: part.map(([one]) => hover(one)),
      customdata: part.map(([one]) => one.number), hovertemplate: "%{text}<extra></extra>", marker: { color: c, size: many ? 4 : 6 },
      error_y: many ? undefined : { type: "data", symmetric: false, array: part.map(([one]) => one.race.high - one.race.ratio), arrayminus: part.map(([one]) => one.race.ratio - one.race.low), color: c, thickness: 1.4, width: 0 },
    });
  }
  plot(box, {
    title: "From the worst to the best", label: `${inside.length} ratios, from ${ratios[0].toFixed(2)} to ${ratios.at(-1).toFixed(2)}`,
    traces, height: narrow() ? 260 : 320,
    layout: { xaxis: { title: { text: "problems, by ratio" }, range: [0, inside.length + 1], showgrid: false }, yaxis: ratioAxis(ratios, "ratio"), shapes: [line("y", 1)] },
  });
  if (window.Plotly) legend(box, VERDICT_LEGEND());
};
