// Putting it together: sections' links, keys, and one `update` after every change.

function update() {
  if (table) {
    applyFilters();
    sortRows();
    for (const number of bodyOf.keys()) if (chosen.open.has(number) !== !bodyOf.get(number).rows[1].hidden) setOpen(number, chosen.open.has(number));
  }
  overview();
  redraw();
  writeAddress();
}

function sectionLinks() {
  const nav = $("nav");
  for (const section of $$("main > section")) {
    if (section.id === "calls" && !$("li", section)) section.hidden = true;
    if (section.hidden || getComputedStyle(section).display === "none") continue;
    const heading = $("h2", section);
    const link = el("a", { href: `#${section.id}` }, heading.textContent);
    link.addEventListener("click", (event) => { // the address keeps the view, so the link only scrolls
      event.preventDefault();
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
      section.scrollIntoView();
    });
    nav.append(link);
  }
}

function step(way) {
  const openers = bodies.filter((body) => !body.hidden).map((body) => $(".open", body));
  const at = openers.indexOf(document.activeElement);
  const next = openers[Math.max(0, Math.min(openers.length - 1, at + way))];
  next?.focus({ preventScroll: true });
  next?.closest("tbody").scrollIntoView({ block: "nearest" });
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inField = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    if (event.target.matches('[data-filter="text"]')) {
      chosen.text = "";
      update();
      event.target.blur();
      return;
    }
    const body = event.target.closest("tbody[data-case]");
    if (!body) return;
    setOpen(Number(body.dataset.case), false);
    writeAddress();
    $(".open", body).focus();
    return;
  }
  if (inField) return;
  const doing = { "/": () => $('[data-filter="text"]').focus(), j: () => step(1), k: () => step(-1), t: nextTheme }[event.key];
  if (!doing) return;
  event.preventDefault();
  doing();
}

function start() {
  paint(remembered());
  $(".theme").addEventListener("click", nextTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("keydown", keys);
  sectionLinks();
  watchFigures();
  if (table) {
    sortChoices();
    tableEvents();
  }
  overviewEvents();
  new ResizeObserver(() => document.documentElement.style.setProperty("--bar", `${controls.offsetHeight - 1}px`)).observe(controls);
  readAddress();
  update();
  window.addEventListener("hashchange", () => { readAddress(); update(); });
  window.addEventListener("resize", () => { if (narrow() !== start.narrow) { start.narrow = narrow(); redraw(); } });
  start.narrow = narrow();
  document.documentElement.dataset.ready = "";
}
start();
