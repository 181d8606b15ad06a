"""The report's style sheet and script."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --quiet: #5d6873; --paper: #fcfcfb; --line: #d9dde1;
  --a: #2f6fde; --s: #7fb0f5; --m: #d9822b; --h: #7b4fc9; --ffn: #8a939c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --quiet: #98a3ad; --paper: #15181b; --line: #343b42; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.2rem 5rem; }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0 0 .6rem; }
h2 { font-size: 1.12rem; font-weight: 600; margin: 2.6rem 0 .7rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.lead { font-size: 1.18rem; line-height: 1.45; margin: 0 0 .5rem; overflow-wrap: anywhere; }
.quiet, .legend { color: var(--quiet); font-size: .9rem; }
.figure { width: 100%; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--quiet); font-weight: 500; white-space: nowrap; }
.sortable th { cursor: pointer; }
.sortable th:hover { color: var(--ink); }
code, pre { font: .84rem/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: 4px; }
.layout { letter-spacing: .04em; white-space: nowrap; }
.copy { overflow-wrap: anywhere; }
.strip { display: flex; flex-wrap: wrap; gap: .2rem .9rem; align-items: center; margin: .35rem 0; }
.strip .number { width: 2.4rem; color: var(--quiet); font-size: .86rem; }
.blocks { display: inline-flex; gap: 2px; flex-wrap: wrap; }
.block { display: inline-block; width: 1.25rem; height: 1.25rem; line-height: 1.25rem; text-align: center;
  font-size: .68rem; color: #fff; border-radius: 3px; }
.small .block { width: .8rem; height: .8rem; font-size: 0; opacity: .7; }
.a { background: var(--a); } .s { background: var(--s); } .m { background: var(--m); } .h { background: var(--h); }
.ffn { background: var(--ffn); }
.recipe table { margin: .6rem 0; }
@media (max-width: 40rem) { main { padding: 1.2rem .9rem 3rem; } .lead { font-size: 1.06rem; } }
@media print { .figure { break-inside: avoid; } }
"""

SCRIPT = """
(() => {
  const figures = JSON.parse(document.getElementById('figures').textContent);
  const ink = () => getComputedStyle(document.documentElement).getPropertyValue('--ink').trim();
  const draw = () => Object.entries(figures).forEach(([id, figure]) => {
    figure.layout.font.color = ink();
    figure.layout.font.family = getComputedStyle(document.body).fontFamily;
    Plotly.react(id, figure.data, figure.layout, {responsive: true, displaylogo: false, displayModeBar: false});
  });
  draw();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  const value = (cell) => {
    const marked = cell.querySelector('[data-value]');
    const text = marked ? marked.dataset.value : cell.textContent;
    const number = parseFloat(text);
    return text === '' ? Infinity : (isNaN(number) || isNaN(+text) ? text : number);
  };
  document.querySelectorAll('table.sortable').forEach((table) => {
    table.querySelectorAll('th').forEach((head, column) => head.addEventListener('click', () => {
      const down = head.dataset.down = head.dataset.down === '1' ? '' : '1';
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a.cells[column]), value(b.cells[column])];
        const order = typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y));
        return down ? order : -order;
      });
      table.tBodies[0].append(...rows);
    }));
  });
})();
"""
