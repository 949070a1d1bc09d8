"""The frame of the HTML report: style sheet, script and policy, all inside the page.

The policy forbids the browser to load anything, so that the page is complete by construction.
"""

from __future__ import annotations

import html

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --text: #1c2026;
  --faint: #667080; --line: #dfe3e9; --own: #8a93a1; --bad: #b3261e;
  --m0: #2463c9; --m1: #c4570a; --m2: #14805a; --m3: #7b4bd6; --m4: #b8327f; --m5: #0b7c93; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #1b1f26; --text: #e6e9ee;
  --faint: #98a2b3; --line: #323842; --own: #8d97a6; --bad: #ff8a80;
  --m0: #6ea8ff; --m1: #ffa25a; --m2: #4fc796; --m3: #b497ff; --m4: #ff8ac4; --m5: #4cc9e0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 20px 60px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 2px; }
h3 { font-size: 15px; margin: 18px 0 2px; }
p { margin: 0 0 12px; }
.faint, .note { color: var(--faint); }
.note { font-size: 13.5px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 20px 22px; margin-top: 20px; overflow-x: auto; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 16px;
  margin-top: 24px; }
.cards section { margin: 0; border-top: 3px solid var(--m); }
.cards h2 { overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: 1fr 1fr; gap: 14px 18px; margin: 14px 0 0; }
.figures dt { color: var(--faint); font-size: 12.5px; }
.figures dd { margin: 0; font-size: 25px; font-weight: 600; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.figures dd small { font-size: 13px; font-weight: 400; color: var(--faint); display: block; }
.badge { font-size: 12px; border: 1px solid var(--line); border-radius: 99px; padding: 1px 8px;
  color: var(--faint); margin-left: 6px; font-weight: 400; white-space: nowrap; }
.failed { border-color: var(--bad); } .failed h2 { color: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13.5px; margin: 8px 0 4px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 99px;
  background: var(--m); margin-right: 6px; }
.legend .own i { background: none; border: 2px solid var(--own); }
.scroll { overflow-x: auto; margin: 10px -4px 0; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 5px 7px; text-align: right; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 150px;
  position: sticky; left: 0; background: var(--card); }
th { color: var(--faint); font-weight: 600; vertical-align: bottom; line-height: 1.3; }
tr.group th { border-bottom: 0; padding-bottom: 4px; color: var(--m, var(--faint));
  text-align: center; }
tr.keys th { padding: 0; }
tr.keys button { all: unset; cursor: pointer; padding: 5px 7px; }
tr.keys button:focus-visible { outline: 2px solid var(--m0); border-radius: 4px; }
tr.keys button::after { content: "\\00a0\\2195"; opacity: 0.35; }
th[aria-sort=ascending] button::after { content: "\\00a0\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\00a0\\2193"; opacity: 1; }
tbody tr:hover { background: color-mix(in srgb, var(--text) 5%, transparent); }
tfoot td { font-weight: 600; border-bottom: 0; }
svg { display: block; width: 100%; min-width: 600px; height: auto; margin-top: 6px; }
svg text { font-size: 12px; fill: var(--text); } svg .title { fill: var(--faint); }
svg .mid { text-anchor: middle; } svg .end { text-anchor: end; } svg .faint { fill: var(--faint);
  font-size: 11px; }
svg .grid { stroke: var(--line); } svg .span { stroke: var(--line); stroke-width: 3; }
svg circle { fill: var(--m); stroke: var(--card); stroke-width: 1.5; }
svg circle.own { fill: var(--card); stroke: var(--own); stroke-width: 2; }
svg .line { fill: none; stroke: var(--m); stroke-width: 2; }
svg .line.own { stroke: var(--own); stroke-dasharray: 5 4; }
svg .box { fill: var(--m); fill-opacity: 0.3; stroke: var(--m); }
svg .box.own { fill: var(--own); stroke: var(--own); fill-opacity: 0.15; }
svg .median { stroke: var(--m); stroke-width: 3; } svg .median.own { stroke: var(--own); }
svg .area { fill: var(--m); fill-opacity: 0.2; stroke: var(--m); stroke-width: 1.5; }
svg .area.own { fill: none; stroke: var(--own); }
.m0 { --m: var(--m0); } .m1 { --m: var(--m1); } .m2 { --m: var(--m2); }
.m3 { --m: var(--m3); } .m4 { --m: var(--m4); } .m5 { --m: var(--m5); }
ul { margin: 6px 0 0; padding-left: 20px; } li { margin-bottom: 6px; }
code { font-size: 0.92em; overflow-wrap: anywhere; }
@media print { body { background: none; } section { break-inside: avoid; } }
"""

SCRIPT = """
for (const button of document.querySelectorAll("tr.keys button")) {
  button.addEventListener("click", () => {
    const cell = button.parentElement, body = cell.closest("table").tBodies[0];
    const down = cell.getAttribute("aria-sort") !== "descending";
    for (const other of cell.parentElement.children) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[cell.cellIndex].dataset.value;
    const order = (a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const by = isNaN(x) || isNaN(y) ? y.localeCompare(x) : y - x;
      return down ? by : -by;
    };
    body.append(...[...body.rows].sort(order));
  });
}
"""


def page(title: str, body: str) -> str:
    """A whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
