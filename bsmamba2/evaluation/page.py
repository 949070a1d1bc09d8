"""The frame of the HTML report: style sheet, script and content security policy, all inline.

The policy forbids the browser to load anything, which guarantees that the page is self-contained.
"""

from __future__ import annotations

import html

from bsmamba2.evaluation.charts import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_STYLE = """
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
    """Returns a complete HTML document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def section(title: str, note: str, content: str) -> str:
    """Returns a part of the body with its heading; `content` is HTML, an empty note is omitted."""
    text = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f"<section><h2>{html.escape(title)}</h2>{text}{content}</section>"
