// The table of cases and the filters: which rows are there, in which order, and which are open.

const FIRST = 150; // rows shown before a reader asks for all
const table = $("table.cases");
const bodies = table ? [...table.tBodies] : [];
const bodyOf = new Map(bodies.map((body) => [Number(body.dataset.case), body]));
const controls = $(".controls");
let all = false;

function applyFilters() {
  for (const control of $$("[data-filter]", controls)) {
    const name = control.dataset.filter;
    if (name === "text") control.value = chosen.text;
    else {
      control.value = chosen.filters[name] ?? "";
      control.classList.toggle("on", control.value !== "");
    }
  }
  const keep = new Set(shown().map((one) => one.number));
  let n = 0;
  for (const body of bodies) {
    const kept = keep.has(Number(body.dataset.case));
    n += kept;
    body.hidden = !kept || (n > FIRST && !all);
  }
  for (const line of $$("[data-of]")) line.hidden = !keep.has(Number(line.dataset.of));
  $("output", controls).textContent = n === cases.length ? write.plural(n, "case") : `${n} of ${cases.length} cases`;
  const more = $(".all");
  more.hidden = n <= FIRST || all;
  more.textContent = `show all ${n} problems`;
  const set = Object.keys(chosen.filters).length + (chosen.text ? 1 : 0);
  $(".clear").hidden = !set;
  $(".unfold").textContent = set ? `filters (${set})` : "filters";
}

function sortRows() {
  const [key, way] = chosen.sort.split(":");
  for (const header of $$("th[aria-sort]", table)) {
    const mine = $("[data-sort]", header).dataset.sort === key;
    header.setAttribute("aria-sort", mine ? (way === "down" ? "descending" : "ascending") : "none");
  }
  const button = key && $(`[data-sort="${CSS.escape(key)}"]`, table);
  const number = (body) => Number(body.dataset.case);
  let order = [...bodies].sort((a, b) => number(a) - number(b)); // losses first, as the page was made
  if (button) {
    const numeric = button.dataset.numeric === "1", sign = way === "down" ? -1 : 1;
    const value = (body) => $(`td[data-k="${key}"]`, body).dataset.v;
    order = order.map((body) => [value(body), body]).sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
    }).map(([, body]) => body);
  }
  bodies.splice(0, bodies.length, ...order);
  table.append(...order);
  $("[data-sorting]").value = button ? chosen.sort : "";
}

function setOpen(number, open) {
  const body = bodyOf.get(number);
  if (!body) return;
  const row = body.rows[1];
  if (open && !row.cells[0].firstChild) row.cells[0].append(sheet(cases[number]));
  row.hidden = !open;
  $(".open", body).setAttribute("aria-expanded", String(open));
  if (open) chosen.open.add(number);
  else chosen.open.delete(number);
}

// From anywhere on the page to a case's row, whatever hides it.
function show(number) {
  if (!visible(cases[number])) clearFilters();
  if (bodyOf.get(number).hidden) all = true;
  setOpen(number, true);
  update();
  const body = bodyOf.get(number);
  $(".open", body).focus({ preventScroll: true });
  body.scrollIntoView({ block: "start" });
}

function clearFilters() {
  chosen.filters = {};
  chosen.text = "";
}

function sortChoices() {
  const choice = $("[data-sorting]");
  choice.append(el("option", { value: "" }, "losses first"));
  for (const button of $$("[data-sort]", table))
    for (const [way, mark] of [["up", "↑"], ["down", "↓"]])
      choice.append(el("option", { value: `${button.dataset.sort}:${way}` }, `${button.title || button.textContent} ${mark}`));
  choice.addEventListener("change", () => { chosen.sort = choice.value; update(); });
}

function tableEvents() {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]");
    if (opener) return show(Number(opener.dataset.open));
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.sort) {
      const [key, way] = chosen.sort.split(":");
      chosen.sort = `${button.dataset.sort}:${key === button.dataset.sort && way === "up" ? "down" : "up"}`;
      update();
    } else if (button.matches("table.cases .open")) {
      const number = Number(button.closest("tbody").dataset.case);
      setOpen(number, !chosen.open.has(number));
      writeAddress();
    } else if (button.matches("table.duels .open")) {
      const row = button.closest("tbody").rows[1];
      row.hidden = !row.hidden;
      button.setAttribute("aria-expanded", String(!row.hidden));
    }
  });
  controls.addEventListener("input", ({ target }) => {
    const name = target.dataset.filter;
    if (name === "text") chosen.text = target.value.trim();
    else if (name && target.value) chosen.filters[name] = target.value;
    else if (name) delete chosen.filters[name];
    if (name) update();
  });
  controls.addEventListener("reset", (event) => { event.preventDefault(); clearFilters(); update(); });
  controls.addEventListener("submit", (event) => event.preventDefault());
  $(".unfold").addEventListener("click", ({ currentTarget }) => {
    const unfolded = controls.classList.toggle("unfolded");
    currentTarget.setAttribute("aria-expanded", String(unfolded));
  });
  $(".all").addEventListener("click", () => { all = true; update(); });
}
