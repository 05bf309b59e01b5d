"use strict";
// Sorting, filtering and opening rows. Everything else on the page is there without this.
(() => {
  const table = document.querySelector("table.cases");
  const bodies = [...table.tBodies];
  const facets = new Map(bodies.map((body) => [body.dataset.case, body.dataset]));
  const parts = [...document.querySelectorAll("[data-case]")];
  const filters = [...document.querySelectorAll("[data-filter]")];
  const output = document.querySelector(".filters output");

  const matches = (data) =>
    filters.every(({ dataset: { filter }, value }) =>
      !value || (filter === "name" ? data.name.includes(value.trim().toLowerCase()) : data[filter] === value));

  function filter() {
    let shown = 0;
    for (const part of parts) {
      const visible = matches(facets.get(part.dataset.case));
      part.toggleAttribute("hidden", !visible);
      if (part.tagName === "TBODY" && visible) shown += 1;
    }
    output.textContent = `${shown} of ${bodies.length} cases`;
  }

  function sort(button) {
    const header = button.parentElement;
    const column = Number(button.dataset.column);
    const numeric = button.dataset.numeric === "1";
    const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const key = (body) => body.rows[0].cells[column].dataset.v;
    bodies.sort((one, two) => {
      const a = key(one), b = key(two);
      if (a === "" || b === "") return (a === "") - (b === "");
      return direction * (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
    });
    table.append(...bodies);
  }

  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.column !== undefined) return sort(button);
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    button.closest("tbody").rows[1].hidden = !open;
  });
  for (const control of filters) control.addEventListener("input", filter);
  filter();
})();
