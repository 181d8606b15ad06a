"use strict";
(async () => {
  const colours = JSON.parse(document.getElementById("colours")?.textContent ?? "[]");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const options = { responsive: true, displayModeBar: false, scrollZoom: false };
  const at = (id) => document.getElementById(id);
  const ROWS = 100; // of the table, at a time

  async function unpacked(id) {
    const packed = Uint8Array.from(atob(at(id).textContent.trim()), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  let data = { figures: {}, rows: [] };
  try {
    if (at("data")) data = JSON.parse(await unpacked("data"));
  } catch {
    for (const place of document.querySelectorAll(".plot, #count"))
      place.textContent = "This needs a browser of 2023 or later.";
  }
  const figures = Object.entries(data.figures);

  const table = at("trials");
  const rows = (data.rows ?? []).map(([number, state, member, drawn, words, cells]) => ({
    number, state, member, drawn, cells, words,
  }));
  const valued = new Set(rows.flatMap((row) => [...row.words.matchAll(/ (\w+) (?=\d)/g)].map((found) => found[1])));
  let fitting = rows, page = 0, chosen = null;

  function element(row) {
    const line = document.createElement("tr");
    line.id = `t${row.number}`;
    line.className = [row.state === "complete" ? "" : "off", row.member ? "member" : "", row === chosen ? "shown" : ""]
      .filter(Boolean).join(" ");
    row.cells.forEach((cell, i) => {
      const box = line.insertCell();
      const text = Array.isArray(cell) ? cell[1] : cell;
      const kind = table.tHead.rows[0].cells[i].textContent;
      if (Array.isArray(cell)) box.className = "n";
      if (kind === "design" || kind === "note") box.className = "prose";
      if (kind === "layout") box.append(Object.assign(document.createElement("code"), { textContent: text }));
      else if (kind === "trial" && row.drawn)
        box.append(Object.assign(document.createElement("button"), { type: "button", className: "find", textContent: text }));
      else box.textContent = text;
    });
    return line;
  }

  function turn(to) {
    const pages = Math.max(1, Math.ceil(fitting.length / ROWS));
    page = Math.min(Math.max(0, to), pages - 1);
    table.tBodies[0].replaceChildren(...fitting.slice(page * ROWS, (page + 1) * ROWS).map(element));
    at("count").textContent =
      fitting.length === rows.length ? `${rows.length} trials` : `${fitting.length} of ${rows.length} trials`;
    at("pager").replaceChildren();
    if (pages === 1) return;
    const step = (sign, by, name) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: sign, ariaLabel: name });
      button.disabled = page + by < 0 || page + by >= pages;
      button.addEventListener("click", () => turn(page + by));
      return button;
    };
    const range = `${page * ROWS + 1} to ${Math.min((page + 1) * ROWS, fitting.length)}`;
    at("pager").append(step("‹", -1, "earlier rows"), ` ${range} `, step("›", 1, "further rows"));
  }

  table?.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("button")?.parentElement;
    if (!head) return;
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => { const cell = row.cells[head.cellIndex]; return Array.isArray(cell) ? cell[0] : cell; };
    rows.sort((a, b) => {
      const x = key(a), y = key(b);
      if (x == null || x === "" || y == null || y === "") // rows without a value stay last
        return (x == null || x === "") - (y == null || y === "");
      const order = typeof x === "number" ? x - y : x.localeCompare(y);
      return falling ? -order : order;
    });
    filter();
  });

  // Words as tests of a row: a number behind a name that has numbers, as in "d_state 16", is one phrase with it, and
  // so are words that follow each other in some row; a number alone is a trial's; other words are looked for from their beginning on, and letters in the layout.
  function tests(text) {
    const words = text.split(/[\s,;]+/).filter(Boolean), found = [];
    for (let i = 0; i < words.length; i++) {
      const word = words[i].toLowerCase();
      let last = i, phrase = ` ${word}`;
      const goesOn = (next) => (valued.has(word) && last === i && /^\d/.test(next))
        || rows.some((row) => row.words.includes(`${phrase} ${next} `));
      while (last + 1 < words.length && goesOn(words[last + 1].toLowerCase()))
        phrase += ` ${words[++last].toLowerCase()}`;
      const letters = words[i];
      if (last > i) found.push((row) => row.words.includes(`${phrase} `));
      else if (/^\d+$/.test(word)) found.push((row) => row.number === Number(word));
      else if (/^\d/.test(word)) found.push((row) => row.words.includes(` ${word} `));
      else found.push((row) => row.words.includes(` ${word}`) || row.words.split(" ").at(-3).includes(letters));
      i = last;
    }
    return found;
  }

  function filter() {
    const wanted = tests(at("wanted").value);
    const state = at("state").value, member = at("onfront").checked;
    fitting = rows.filter((row) => wanted.every((fits) => fits(row))
      && (state === "" || row.state === state) && (!member || row.member));
    turn(0);
  }
  if (rows.length) {
    for (const id of ["wanted", "state", "onfront"]) at(id).addEventListener("input", filter);
    filter();
  }

  function show(number) {
    chosen = rows.find((row) => row.number === Number(number)) ?? null;
    if (!chosen) return;
    if (!fitting.includes(chosen)) {
      at("wanted").value = at("state").value = "";
      at("onfront").checked = false;
      filter();
    }
    turn(Math.floor(fitting.indexOf(chosen) / ROWS));
    at(`t${chosen.number}`).scrollIntoView({ block: "center", behavior: "smooth" });
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
  const script = document.createElement("script");
  script.textContent = await unpacked("library");
  document.head.append(script);

  async function draw() {
    for (const [key, drawn] of figures) {
      let text = JSON.stringify(drawn);
      if (dark.matches) for (const [light, other] of colours) text = text.replaceAll(light, other);
      const figure = JSON.parse(text);
      figure.layout.font.family = getComputedStyle(document.body).fontFamily;
      await Plotly.react(at(key), figure.data, figure.layout, options);
      if (figure.layout.annotations?.length) await spread(at(key));
    }
  }

  // A label stands at the place nearest its point where it covers no other label, no member and no whisker.
  async function spread(plot) {
    const texts = [...plot.querySelectorAll(".annotation-text-g")];
    const frame = plot.querySelector(".nsewdrag").getBoundingClientRect();
    const front = [...plot.querySelectorAll(".scatterlayer .trace")].at(-1);
    const drawn = [...front.querySelectorAll(".points path, .errorbars path")].map((one) => one.getBoundingClientRect());
    const placed = [], moves = {};
    const clear = (rect, others, gap) => others.every((other) => rect.left >= other.right + gap
      || other.left >= rect.right + gap || rect.top >= other.bottom + gap || other.top >= rect.bottom + gap);
    const order = texts.map((_, i) => i).sort((a, b) => plot.layout.annotations[a].x - plot.layout.annotations[b].x);
    for (const i of order) {
      const box = texts[i].getBoundingClientRect(), ay = plot.layout.annotations[i].ay ?? 0;
      const places = [];
      for (let dy = -260; dy <= 260; dy += 4)
        for (let dx = -160; dx <= 160; dx += 8) places.push([dx, dy, Math.hypot(dx, ay + dy) + Math.abs(dx) / 2]);
      places.sort((one, other) => one[2] - other[2]);
      const moved = ([dx, dy]) =>
        ({ left: box.left + dx, right: box.right + dx, top: box.top + dy, bottom: box.bottom + dy });
      const inside = (rect) => rect.left >= frame.left && rect.right <= frame.right
        && rect.top >= frame.top && rect.bottom <= frame.bottom;
      const place = places.find((to) => inside(moved(to)) && clear(moved(to), placed, 3) && clear(moved(to), drawn, 2))
        ?? places.find((to) => inside(moved(to)) && clear(moved(to), placed, 3)) ?? [0, 0];
      placed.push(moved(place));
      moves[`annotations[${i}].ax`] = (plot.layout.annotations[i].ax ?? 0) + place[0];
      moves[`annotations[${i}].ay`] = ay + place[1];
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

  for (const [key] of figures)
    at(key).on("plotly_click", (event) => {
      const [number] = event.points.flatMap(numbers);
      if (number !== undefined) show(number);
    });

  table?.tBodies[0].addEventListener("click", (event) => {
    const number = Number(event.target.closest("tr")?.id.slice(1));
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
