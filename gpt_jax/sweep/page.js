// The table of runs: a click on a header sorts, the box filters; both are kept in the address
// (#sort=loss, #sort=-loss&filter=done), so that a view can be sent. Missing values stay last.
"use strict";
const table = document.getElementById("runs");
const body = table.tBodies[0];
const headers = [...table.tHead.rows[0].cells];
const rows = [...body.rows];
const box = document.getElementById("filter");
const count = document.getElementById("count");
const words = new Map(rows.map((row) => [row, textOf(row)]));
let sorted = "";

function textOf(row) {
  return [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
}

function value(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  return { missing: cell.classList.contains("missing"), text, number: Number(text) };
}

function compare(a, b) {
  if (Number.isNaN(a.number) || Number.isNaN(b.number)) {
    return a.text.localeCompare(b.text, undefined, { numeric: true });
  }
  return a.number - b.number;
}

function sort(key) {
  const descending = key.startsWith("-");
  const column = headers.findIndex((th) => th.dataset.key === key.replace(/^-/, ""));
  if (column < 0) return;
  sorted = key;
  const keyed = rows.map((row) => [value(row, column), row]);
  keyed.sort(([a], [b]) => a.missing - b.missing || (descending ? compare(b, a) : compare(a, b)));
  body.append(...keyed.map(([, row]) => row));
  headers.forEach((th, i) => {
    const way = descending ? "descending" : "ascending";
    th.setAttribute("aria-sort", i === column ? way : "none");
  });
}

function filter() {
  const wanted = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    row.hidden = !wanted.every((word) => words.get(row).includes(word));
    shown += !row.hidden;
  }
  count.textContent = `${shown} of ${rows.length} rows`;
}

function remember() {
  const state = new URLSearchParams();
  if (sorted) state.set("sort", sorted);
  if (box.value) state.set("filter", box.value);
  history.replaceState(null, "", `#${state}`);
}

function recall() {
  const state = new URLSearchParams(location.hash.slice(1));
  if (!state.has("sort") && !state.has("filter")) return;
  box.value = state.get("filter") ?? "";
  if (state.has("sort")) sort(state.get("sort"));
  filter();
}

for (const th of headers) {
  th.querySelector("button").addEventListener("click", () => {
    sort(sorted === th.dataset.key ? `-${th.dataset.key}` : th.dataset.key);
    remember();
  });
}
box.addEventListener("input", () => { filter(); remember(); });
window.addEventListener("hashchange", recall);
document.getElementById("tools").hidden = false;
filter();
recall();
