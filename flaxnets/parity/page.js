"use strict";
const matrix = document.querySelector(".matrix");
const cells = () => [...matrix.querySelectorAll("button[aria-controls]")];
const cellOf = (row) => cells().find((cell) => cell.getAttribute("aria-controls") === row.id);

function unfold(cell, open) {
  // One cell of a row at a time, so that what is unfolded stays next to its row.
  for (const other of open ? cell.closest("tr").querySelectorAll("[aria-expanded=true]") : []) {
    unfold(other, false);
  }
  cell.setAttribute("aria-expanded", open);
  document.getElementById(cell.getAttribute("aria-controls")).hidden = !open;
}

function follow() {
  const cell = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!cell || !cell.matches("button[aria-controls]")) return;
  unfold(cell, true);
  cell.focus();
}

matrix.addEventListener("click", (event) => {
  const cell = event.target.closest("button[aria-controls]");
  if (cell) unfold(cell, cell.getAttribute("aria-expanded") !== "true");
  if (event.target.matches(".close")) {
    const opener = cellOf(event.target.closest("tr"));
    unfold(opener, false);
    opener.focus();
  }
});

matrix.addEventListener("keydown", (event) => {
  const unfolded = event.target.closest(".unfolded");
  const cell = unfolded ? cellOf(unfolded) : event.target.closest("button[aria-controls]");
  if (!cell) return;
  if (event.key === "Escape") {
    unfold(cell, false);
    cell.focus();
  }
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step || unfolded) return;
  event.preventDefault();
  const rows = [...matrix.querySelectorAll("tbody tr:not(.unfolded)")].filter((row) => row.offsetParent);
  let down = rows.indexOf(cell.closest("tr"));
  let across = cell.parentElement.cellIndex;
  do {
    down += step[0];
    across += step[1];
    const next = rows[down] && rows[down].cells[across];
    if (!next) return;
    const target = next.querySelector("button");
    if (target) return target.focus();
  } while (true);
});

const only = document.getElementById("only");
if (only) {
  only.addEventListener("change", () => {
    for (const cell of matrix.querySelectorAll(".good [aria-expanded=true]")) unfold(cell, false);
    matrix.classList.toggle("only", only.checked);
  });
}

addEventListener("hashchange", follow);
document.querySelector(".failures")?.addEventListener("click", (event) => {
  // The same link twice changes no hash.
  if (event.target.getAttribute("href") === location.hash) follow();
});
follow();
