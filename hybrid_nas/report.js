"use strict";
(() => {
  const colours = JSON.parse(document.getElementById("colours").textContent);
  const figures = [...document.querySelectorAll("script[data-figure]")];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const options = { responsive: true, displayModeBar: false, scrollZoom: false };

  function draw() {
    for (const source of figures) {
      let text = source.textContent;
      if (dark.matches) for (const [light, other] of colours) text = text.replaceAll(light, other);
      const figure = JSON.parse(text);
      figure.layout.font.family = getComputedStyle(document.body).fontFamily;
      Plotly.react(document.getElementById(source.dataset.figure), figure.data, figure.layout, options);
    }
  }

  dark.addEventListener("change", draw);
  draw();

  const table = document.getElementById("trials");
  table?.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("button")?.parentElement;
    if (!head) return;
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => row.cells[head.cellIndex].dataset.v ?? row.cells[head.cellIndex].textContent;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === ""); // rows without a value stay last
      const order = x - y || (isNaN(x - y) ? x.localeCompare(y) : 0);
      return falling ? -order : order;
    });
    table.tBodies[0].append(...rows);
  });
})();
