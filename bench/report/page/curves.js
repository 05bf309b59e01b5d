// Cold against warm, scaling over sizes and threads, the tuning landscape, and history.

const same = (one) => [one.origin, one.name, one.threads, one.record.asked].join("|");
const dots = (here, x, y, more = {}) => ({
  type: "scatter", mode: "markers", x, y, text: here.map(hover), hovertemplate: "%{text}<extra></extra>", customdata: here.map((one) => one.number),
  marker: { color: here.map((one) => verdictColour(one.verdict)), size: 8, opacity: 0.8, line: { width: 0.8, color: colour("bg") } }, ...more,
});
const diagonal = (low, high) => ({ type: "line", x0: low, y0: low, x1: high, y1: high, line: { color: colour("one"), width: 1.2, dash: "dot" }, layer: "below" });

figures.cold = (box) => {
  const warm = new Map(cases.filter((one) => one.cache === "warm" && counted(one)).map((one) => [same(one), one]));
  const rest = { ...chosen.filters };
  delete chosen.filters.cache; // both are needed, whichever is chosen
  const inside = cases.filter((one) => one.cache === "cold" && counted(one) && visible(one) && warm.has(same(one)));
  chosen.filters = rest;
  if (!inside.length) return say(box, "No case was timed with cold caches beside warm ones: ", command("kernelwright bench quick --cold"), " does both.");
  const pairs_ = inside.map((one) => [one, warm.get(same(one))]);
  box.append(el("p", { class: "hint" }, "Warm: the operands lie in the caches, as in a loop. Cold: each call gets operands that no cache holds. A kernel that is ahead only when warm lies at the bottom right."));
  const grid = panels(box);
  const height = narrow() ? 330 : 400;
  const words = pairs_.map(([cold, hot]) => `${hover(cold)}<br>warm: ${hot.race.ratio.toFixed(2)}, ${write.seconds(hot.record.seconds)}`);
  const all = pairs_.flatMap(([cold, hot]) => [cold.race.ratio, hot.race.ratio]);
  plot(grid, {
    title: "Ratio to the fastest vendor", label: `${inside.length} ratios, cold against warm`, height,
    traces: [dots(inside, pairs_.map(([, hot]) => hot.race.ratio), pairs_.map(([cold]) => cold.race.ratio), { text: words })],
    layout: { xaxis: ratioAxis(all, "warm"), yaxis: ratioAxis(all, "cold"), shapes: [line("x", 1), line("y", 1), diagonal(1 / 64, 64)] },
  });
  const ours = pairs_.map(([cold, hot]) => cold.race.ours_s / hot.race.ours_s), theirs = pairs_.map(([cold, hot]) => cold.race.theirs_s / hot.race.theirs_s);
  const axis = (title) => ({ ...ratioAxis([...ours, ...theirs], title) });
  plot(grid, {
    title: "How much longer a cold call takes", label: `${inside.length} problems: cold time over warm time, ours and the vendor's`, height,
    traces: [dots(inside, theirs, ours, { text: words })],
    layout: { xaxis: axis("the vendor: cold / warm"), yaxis: axis("ours: cold / warm"), shapes: [diagonal(1 / 64, 64)] },
  });
  if (window.Plotly) legend(box, [["cold: ahead", colour("ahead")], ["too close to call", colour("even")], ["behind", colour("behind")]]);
};

let seriesShown = 0;
figures.sizes = (box) => {
  box.append(el("h3", {}, "Over size"));
  const usable = report.series.map((series, n) => [series, n]).filter(([series]) => series.points.some(([, number]) => inWhole(cases[number])));
  if (!usable.length) return say(box, "No three problems here differ in one size alone: ", command("kernelwright bench squares"), " has such a series.");
  if (!usable.some(([, n]) => n === seriesShown)) seriesShown = usable[0][1];
  const series = report.series[seriesShown];
  const origins = new Set(usable.map(([each]) => each.origin));
  const nameOf = (each) => each.name + (each.cache === "cold" ? ", cold" : "") + (each.asked ? `, ${each.asked}` : "") + (origins.size > 1 ? ` (${each.origin})` : "");
  if (window.Plotly) choice(box, "series", usable.map(([each, n]) => [String(n), nameOf(each)]), String(seriesShown), (value) => { seriesShown = Number(value); drawn.delete(box); draw(box); });
  const points = series.points.map(([size, number]) => [size, cases[number]]).filter(([, one]) => equal(one, "threads"));
  const threads = [...new Set(points.map(([, one]) => one.threads))].sort((a, b) => a - b);
  const speed = [], ratio = [], entries = [];
  threads.forEach((count, n) => {
    const here = points.filter(([, one]) => one.threads === count);
    const c = colour(PALETTE[n % PALETTE.length]);
    const curve = (y, name, dash) => ({
      type: "scatter", mode: "lines+markers", x: here.map(([size]) => size), y, line: { color: c, width: 2, dash }, marker: { size: 6, symbol: dash ? "circle-open" : "circle" },
      text: here.map(([, one]) => hover(one)), hovertemplate: `%{text}<extra>${name}</extra>`, customdata: here.map(([, one]) => one.number),
    });
    speed.push(curve(here.map(([, one]) => one.record.gflops), "ours"));
    speed.push(curve(here.map(([, one]) => (one.race ? one.record.flops / one.race.theirs_s / 1e9 : null)), "vendor", "dot"));
    const raced = here.filter(([, one]) => counted(one));
    ratio.push({
      type: "scatter", mode: "lines", hoverinfo: "skip", fill: "toself", line: { width: 0 }, fillcolor: `${c}2e`,
      x: [...raced.map(([size]) => size), ...raced.map(([size]) => size).reverse()], y: [...raced.map(([, one]) => one.race.low), ...raced.map(([, one]) => one.race.high).reverse()],
    });
    ratio.push({ ...curve(here.map(([, one]) => (counted(one) ? one.race.ratio : null)), "ratio") });
    entries.push([`ours, ${write.threads(count)}`, c, "line"], ["fastest vendor", c, "dash"]);
  });
  const sizes = [...new Set(points.map(([size]) => size))];
  const few = sizes.filter((_, n) => n % Math.ceil(sizes.length / (narrow() ? 5 : 9)) === 0);
  const xaxis = { type: "log", title: { text: `N of ${series.name}` }, tickvals: few, ticktext: few.map(String) };
  const grid = panels(box);
  plot(grid, { title: "Speed", label: `GFLOP/s of ${series.name} for ${sizes.length} sizes`, traces: speed, height: narrow() ? 320 : 370, layout: { xaxis, yaxis: { title: { text: "GFLOP/s" }, rangemode: "tozero" } } });
  plot(grid, {
    title: "Ratio, with its interval", label: `ratios of ${series.name} for ${sizes.length} sizes`, traces: ratio, height: narrow() ? 320 : 370,
    layout: { xaxis, yaxis: ratioAxis(points.filter(([, one]) => counted(one)).flatMap(([, one]) => [one.race.low, one.race.high]), "ratio"), shapes: [line("y", 1)] },
  });
  if (window.Plotly) legend(box, entries);
};

figures.threads = (box) => {
  box.append(el("h3", {}, "Over threads"));
  const key = (one) => [one.origin, one.name, one.cache, one.record.asked].join("|");
  const single = new Map(cases.filter((one) => one.threads === 1 && one.race).map((one) => [key(one), one]));
  const rest = { ...chosen.filters };
  delete chosen.filters.threads; // both are needed, whichever is chosen
  const inside = cases.filter((one) => one.threads > 1 && one.race && visible(one) && single.has(key(one)));
  chosen.filters = rest;
  if (!inside.length) return say(box, "No problem here was timed on one thread and on more: ", command("kernelwright bench quick --threads 1,2"), " does both.");
  box.append(el("p", { class: "hint" }, "How many times faster each is than itself on one thread. Above the dotted line ours gains more from threads than the vendor."));
  const grid = panels(box);
  for (const threads of [...new Set(inside.map((one) => one.threads))].sort((a, b) => a - b)) {
    const here = inside.filter((one) => one.threads === threads);
    const ours = here.map((one) => single.get(key(one)).race.ours_s / one.race.ours_s), theirs = here.map((one) => single.get(key(one)).race.theirs_s / one.race.theirs_s);
    const both = [...ours, ...theirs].sort((a, b) => a - b);
    const at = (q) => both[Math.round(q * (both.length - 1))];
    const range = [Math.min(0.8, at(0.005)) * 0.92, Math.max(threads * 1.1, at(0.985)) * 1.08]; // not stretched by the few
    const outside = here.filter((_, n) => Math.max(ours[n], theirs[n]) > range[1] || Math.min(ours[n], theirs[n]) < range[0]).length;
    const words = here.map((one, n) => `${hover(one)}<br>ours ${ours[n].toFixed(2)} times one thread, ${one.race.baseline} ${theirs[n].toFixed(2)}`);
    const axis = (title) => ({ range, title: { text: title } });
    plot(grid, {
      title: write.threads(threads), label: `${here.length} problems: ours gain ${median(ours).toFixed(2)} from ${threads} threads in the median, the vendor's ${median(theirs).toFixed(2)}`, height: narrow() ? 340 : 400,
      note: `in the median ours ${median(ours).toFixed(2)}, the vendor's ${median(theirs).toFixed(2)}${outside ? `; ${outside} outside the picture` : ""}`,
      traces: [dots(here, theirs, ours, { text: words })],
      layout: { xaxis: axis("the vendor's gain"), yaxis: axis("our gain"), shapes: [diagonal(0, 100), line("y", threads, "line"), line("x", threads, "line")] },
    });
  }
  if (window.Plotly) legend(box, VERDICT_LEGEND());
};

let landscape = 0, landscapeBy = "";
figures.tuning = (box) => {
  const names = new Set(cases.filter(inWhole).map((one) => `${one.name}|${one.threads}`));
  const usable = report.tuning.map((each, n) => [each, n]).filter(([each]) => names.has(`${each.name}|${each.threads}`));
  if (!usable.length) return say(box, "No configurations of these problems were measured on the machine that made this page: ", command("kernelwright tune quick"), " measures them, and a page made after it shows them.");
  if (!usable.some(([, n]) => n === landscape)) [landscape, landscapeBy] = [usable[0][1], ""];
  const { entries, chosen: used, name, threads } = report.tuning[landscape];
  const again = () => { drawn.delete(box); draw(box); };
  const parameters = [...new Set(entries.flatMap(({ config }) => Object.keys(config)))].filter((p) => new Set(entries.map(({ config }) => config[p])).size > 1 && entries.every(({ config }) => !has(config[p]) || typeof config[p] === "number"));
  if (window.Plotly) {
    choice(box, "problem", usable.map(([each, n]) => [String(n), `${each.name}, ${write.threads(each.threads)}`]), String(landscape), (value) => { [landscape, landscapeBy] = [Number(value), ""]; again(); });
    choice(box, "along", [["", "rank"], ...parameters.map((p) => [p, p])], landscapeBy, (value) => { landscapeBy = value; again(); });
  }
  box.append(el("p", { class: "hint" }, "Each configuration's time beside the fastest one's. The ring is what the run used."));
  const kernels = [...new Set(entries.map(({ kernel }) => kernel))];
  const best = entries[0].seconds;
  const at = (entry, n) => (landscapeBy ? entry.config[landscapeBy] : n + 1);
  const words = (entry) => `<b>${entry.kernel}</b><br>${write.config(entry.config).replaceAll("<", "&lt;")}<br>${write.seconds(entry.seconds)}, ${(entry.seconds / best).toFixed(2)} times the fastest`;
  const traces = kernels.map((kernel, k) => {
    const here = entries.map((entry, n) => [entry, n]).filter(([entry, n]) => entry.kernel === kernel && has(at(entry, n)));
    return {
      type: "scatter", mode: "markers", x: here.map(([entry, n]) => at(entry, n)), y: here.map(([entry]) => entry.seconds / best), text: here.map(([entry]) => words(entry)), hovertemplate: "%{text}<extra></extra>",
      marker: { color: colour(PALETTE[k] ?? "s6"), size: 8, opacity: 0.8 },
    };
  });
  if (has(used) && has(at(entries[used], used)))
    traces.push({ type: "scatter", mode: "markers", x: [at(entries[used], used)], y: [entries[used].seconds / best], hoverinfo: "skip", marker: { symbol: "circle-open", size: 17, color: colour("ink"), line: { width: 2 } } });
  const worst = Math.max(...entries.map(({ seconds }) => seconds / best));
  const ticks = [1, 1.1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64].filter((x) => x <= worst * 1.2);
  plot(box, {
    title: `${name}, ${write.threads(threads)}`, note: `${entries.length} configurations; the fastest ${write.seconds(best)}: ${entries[0].kernel} ${write.config(entries[0].config)}`,
    label: `Times of ${entries.length} configurations of ${name}`, traces, height: narrow() ? 320 : 380,
    layout: { xaxis: { title: { text: landscapeBy || "configurations, by time" } }, yaxis: { type: "log", range: [Math.log10(0.95), Math.log10(worst * 1.1)], tickvals: ticks, ticktext: ticks.map(String), title: { text: "times the fastest" } }, shapes: [line("y", 1)] },
  });
  if (window.Plotly) legend(box, kernels.map((kernel, k) => [kernel, colour(PALETTE[k] ?? "s6")]));
};

let past = 0;
figures.history = (box) => {
  const names = new Set(cases.filter(inWhole).map((one) => one.name));
  const usable = report.history.map((each, n) => [each, n]).filter(([each]) => each.points.length && (!names.size || names.has(each.name)));
  if (!usable.length) return say(box, "No earlier runs of these problems are in the store, which keeps every run of ", command("kernelwright bench"), " on this machine.");
  if (!usable.some(([, n]) => n === past)) past = usable[0][1];
  const { points, changes, name, threads, cache, machine } = report.history[past];
  if (window.Plotly) choice(box, "problem", usable.map(([each, n]) => [String(n), `${each.name}, ${write.threads(each.threads)}${each.cache === "cold" ? ", cold" : ""}, ${each.machine}`]), String(past), (value) => { past = Number(value); drawn.delete(box); draw(box); });
  const known = points.filter((point) => has(point.ratio));
  const by = known.length ? "ratio" : "seconds";
  const here = known.length ? known : points;
  const words = here.map((p) => `<b>${p.started.slice(0, 16).replace("T", " ")}</b><br>commit ${(p.commit ?? "unknown").slice(0, 12)}<br>${has(p.ratio) ? `ratio ${p.ratio.toFixed(2)}, ` : ""}${write.seconds(p.seconds)}`);
  const bars = known.length && here.every((p) => has(p.low)) ? { type: "data", symmetric: false, array: here.map((p) => p.high - p.ratio), arrayminus: here.map((p) => p.ratio - p.low), color: colour("s0"), thickness: 1.3, width: 0 } : undefined;
  const yaxis = by === "ratio" ? ratioAxis(here.flatMap((p) => [p.low ?? p.ratio, p.high ?? p.ratio]), "ratio") : { type: "log", title: { text: "seconds a call" } };
  // A line of commits: those in their order, which is not always that of the runs.
  const ordered = here.every((p, n) => !n || p.started >= here[n - 1].started);
  plot(box, {
    title: `${name}, ${write.threads(threads)}${cache === "cold" ? ", cold" : ""}`, note: `${machine}; ${write.plural(here.length, "run")}${changes.length ? `, ${write.plural(changes.length, "change")}` : ""}`,
    label: `${name}: ${here.length} runs`, height: narrow() ? 300 : 350,
    traces: [{ type: "scatter", mode: "lines+markers", x: here.map((p, n) => (ordered ? p.started : n + 1)), y: here.map((p) => p[by]), text: words, hovertemplate: "%{text}<extra></extra>", line: { color: colour("s0"), width: 1.6 }, marker: { size: 7 }, error_y: bars }],
    layout: {
      xaxis: ordered ? { type: "date" } : { title: { text: "runs, in the order of their commits" } }, yaxis,
      shapes: [...(by === "ratio" ? [line("y", 1)] : []), ...changes.map((n) => line("x", ordered ? points[n].started : here.indexOf(points[n]) + 1, "s1", "dash"))],
    },
  });
};
