"use strict";
(async () => {
  const colours = JSON.parse(document.getElementById("colours")?.textContent ?? "[]");
  const figures = [...document.querySelectorAll("script[data-figure]")];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const options = { responsive: true, displayModeBar: false, scrollZoom: false };
  const at = (id) => document.getElementById(id);

  // The table needs no library, so it works even where the charts cannot be drawn.
  const table = at("trials");
  const rows = table ? [...table.tBodies[0].rows] : [];

  table?.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("button")?.parentElement;
    if (!head) return;
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => row.cells[head.cellIndex].dataset.v ?? row.cells[head.cellIndex].textContent;
    rows.sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === ""); // rows without a value stay last
      const order = x - y || (isNaN(x - y) ? x.localeCompare(y) : 0);
      return falling ? -order : order;
    });
    table.tBodies[0].append(...rows);
  });

  function filter() {
    const words = at("wanted").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word))
        && (at("state").value === "" || row.cells[1].textContent === at("state").value)
        && (!at("onfront").checked || row.classList.contains("member"));
      row.hidden = !fits;
      shown += fits;
    }
    at("count").textContent = shown === rows.length ? `${shown} trials` : `${shown} of ${rows.length} trials`;
  }
  if (table) {
    for (const id of ["wanted", "state", "onfront"]) at(id).addEventListener("input", filter);
    filter();
  }

  function show(number) {
    const row = at(`t${number}`);
    if (!row) return;
    if (row.hidden) {
      at("wanted").value = at("state").value = "";
      at("onfront").checked = false;
      filter();
    }
    for (const other of rows) other.classList.toggle("shown", other === row);
    row.scrollIntoView({ block: "center", behavior: "smooth" });
  }
  for (const link of document.querySelectorAll('a[href^="#t"]'))
    link.addEventListener("click", (event) => { event.preventDefault(); show(link.hash.slice(2)); });

  for (const button of document.querySelectorAll(".copy button"))
    button.addEventListener("click", async () => {
      const text = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(text); // no clipboard here: the line is selected for the reader to copy
      }
    });

  if (!figures.length) return;
  try {
    const packed = Uint8Array.from(atob(at("library").textContent.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  } catch {
    for (const plot of document.querySelectorAll(".plot"))
      plot.textContent = "This chart needs a browser of 2023 or later.";
    return;
  }

  async function draw() {
    for (const source of figures) {
      let text = source.textContent;
      if (dark.matches) for (const [light, other] of colours) text = text.replaceAll(light, other);
      const figure = JSON.parse(text);
      figure.layout.font.family = getComputedStyle(document.body).fontFamily;
      await Plotly.react(at(source.dataset.figure), figure.data, figure.layout, options);
      if (figure.layout.annotations?.length) await spread(at(source.dataset.figure));
    }
  }

  // Labels of points that lie close together are pushed down until none covers another.
  async function spread(plot) {
    const texts = [...plot.querySelectorAll(".annotation-text-g")];
    const frame = plot.querySelector(".nsewdrag").getBoundingClientRect();
    const placed = [], moves = {};
    const order = texts.map((_, i) => i).sort((a, b) => plot.layout.annotations[a].x - plot.layout.annotations[b].x);
    for (const i of order) {
      const box = texts[i].getBoundingClientRect();
      const side = Math.max(0, frame.left - box.left) - Math.max(0, box.right - frame.right);
      const rect = { left: box.left + side, right: box.right + side, top: box.top, bottom: box.bottom };
      let clash;
      while ((clash = placed.find((other) => rect.left < other.right + 4 && other.left < rect.right + 4
        && rect.top < other.bottom + 1 && other.top < rect.bottom + 1))) {
        const down = clash.bottom + 2 - rect.top;
        rect.top += down;
        rect.bottom += down;
      }
      placed.push(rect);
      moves[`annotations[${i}].ax`] = (plot.layout.annotations[i].ax ?? 0) + side;
      moves[`annotations[${i}].ay`] = (plot.layout.annotations[i].ay ?? 0) + rect.top - box.top;
    }
    await Plotly.relayout(plot, moves);
  }

  function numbers(point) {
    const told = point.customdata;
    return told == null ? [] : Array.isArray(told) ? told : [told];
  }

  dark.addEventListener("change", draw);
  await draw();
  document.body.dataset.drawn = figures.length;

  for (const source of figures)
    at(source.dataset.figure).on("plotly_click", (event) => {
      const [number] = event.points.flatMap(numbers);
      if (number !== undefined) show(number);
    });

  table?.tBodies[0].addEventListener("click", (event) => {
    const number = Number(event.target.closest("button.find")?.textContent);
    const plot = at("front-0");
    if (!plot || !event.target.closest("button.find")) return;
    plot.data.forEach((trace, curveNumber) => {
      const pointNumber = (trace.customdata ?? []).findIndex((told) => [].concat(told).includes(number));
      if (pointNumber < 0) return;
      const { xaxis, yaxis } = plot._fullLayout, x = xaxis.d2p(trace.x[pointNumber]), y = yaxis.d2p(trace.y[pointNumber]);
      if (x < 0 || y < 0 || x > xaxis._length || y > yaxis._length)
        document.querySelector('.toggle[data-for="front-0"] [data-range="all"]')?.click();
      plot.scrollIntoView({ block: "center", behavior: "smooth" });
      Plotly.Fx.hover(plot, [{ curveNumber, pointNumber }]);
    });
  });

  for (const group of document.querySelectorAll(".toggle"))
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      for (const other of group.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
      const plot = at(group.dataset.for);
      if (button.dataset.range) {
        group.querySelector(".note").hidden = button.dataset.range === "all";
        const { xaxis, yaxis } = plot.layout.meta[button.dataset.range];
        Plotly.relayout(plot, { "xaxis.range": xaxis, "yaxis.range": yaxis });
        return;
      }
      const visible = plot.data.map((trace) => trace.meta === button.dataset.show);
      Plotly.update(plot, { visible }, { "xaxis.title.text": button.dataset.title });
    });
})();
