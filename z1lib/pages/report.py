"""`report.html`: the executed analysis notebook as one page that needs nothing else: the answer first, no code.

`python -m z1lib.pages.report runs/mini/04_analysis.ipynb runs/mini/report.html`, or `make reproduce`.
"""

import re
import sys
from pathlib import Path

import bleach
import nbformat
import pandas as pd
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from z1lib.analysis.findings import say_answer
from z1lib.files import written_whole

QUESTION = "Does a model that thinks less still find the answer?"
# The notebook's plain body has no style of its own; wide tables and pictures must not push a narrow page sideways, and
# no number may break.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
:root {{ --text: #222; --page: #fff; --line: #ddd; }}
@media (prefers-color-scheme: dark) {{ :root {{ --text: #ddd; --page: #181818; --line: #444; }} }}
body {{ max-width: 60rem; margin: auto; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; }}
body {{ color: var(--text); background: var(--page); }}
h1 {{ font-size: 1.5rem; margin: 0; }}
img, svg {{ max-width: 100%; height: auto; background: #fff; }}
details {{ border-top: 1px solid var(--line); }}
summary {{ cursor: pointer; font-weight: 600; padding: 0.5rem 0; }}
pre, .scroll {{ overflow-x: auto; }}
p, li {{ overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; font-size: 0.85rem; margin: 1rem 0; }}
th, td {{ padding: 0.15rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }}
td.text {{ text-align: left; min-width: 8rem; max-width: 24rem; }}
td.number, th {{ white-space: nowrap; }}
a.anchor-link, .prompt, .jp-InputPrompt, .jp-OutputPrompt {{ display: none; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
# What a page may hold that was made of what a model wrote.
TAGS = {"div", "span", "p", "br", "hr", "pre", "code", "b", "i", "em", "strong", "a", "img", "ul", "ol", "li", "sup"}
TAGS |= {"h1", "h2", "h3", "h4", "blockquote", "table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"*": ["class", "id"], "a": ["href"], "img": ["src", "alt"], "th": ["colspan", "rowspan"]}
NUMBER = re.compile(r"[\s\d.,+\-–%\[\]():±×]*|nan|None|True|False")


def make_report(notebook: Path, report: Path) -> Path:
    """Write the page: text, tables and figures of an executed notebook, pictures inside. Whole or absent.

    The first section is open, the others are folded. All is sanitised: a page that holds what a model wrote runs
    nothing of it. Raises ValueError naming the notebook if it was not executed.
    """
    node = nbformat.read(notebook, as_version=4)
    if not any(cell.get("outputs") for cell in node.cells):
        raise ValueError(f"{notebook} has no outputs: it was not executed")
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_input_prompt=True)
    first, *others = [_export(exporter, cells) for cells in _sections(node.cells)]
    folded = (_fold(section) for section in others)
    with written_whole(report) as unfinished:
        unfinished.write_text(PAGE.format(title=QUESTION, body="\n".join([first, *folded])), encoding="utf-8")
    return report


def _sections(cells: list) -> list[list]:
    """The cells from one heading to the next, without the exercises; what the set-up shows is part of the first."""
    starts = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and cell.source.startswith("## ")]
    parts = [cells[start:end] for start, end in zip(starts, [*starts[1:], len(cells)])]
    parts[0] = [parts[0][0], *filter(_shows, cells[: starts[0]]), *parts[0][1:]]
    return [part for part in parts if not part[0].source.startswith(("## Exercises", "## What is written"))]


def _shows(cell) -> bool:
    """Whether a cell shows something, such as that it reads committed results, and not only logs."""
    return any(output.output_type == "display_data" for output in cell.get("outputs", ()))


def _export(exporter: HTMLExporter, cells: list) -> str:
    body, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    page = BeautifulSoup(body, "html.parser")
    for code in page.find_all(["script", "style"]):  # with what is in them; bleach would leave it as text
        code.decompose()
    clean = bleach.clean(str(page), TAGS, ATTRIBUTES, ["https", "http", "data"], strip=True)
    page = BeautifulSoup(clean, "html.parser")
    for cell in page.find_all("td"):
        cell["class"] = "number" if NUMBER.fullmatch(cell.get_text()) else "text"
    for table in page.find_all("table"):
        table.wrap(page.new_tag("div", attrs={"class": "scroll"}))
    for picture in page.find_all("img"):  # its caption is the next emphasised text and what follows it
        caption = picture.find_next("em")
        picture["alt"] = caption.parent.get_text().strip() if caption else ""
    return str(page)


def _fold(section: str) -> str:
    page = BeautifulSoup(section, "html.parser")
    heading = page.find("h2").extract()
    for link in heading.find_all("a"):
        link.decompose()
    return f"<details><summary>{heading.decode_contents()}</summary>{page}</details>"


def main(notebook: Path, report: Path) -> None:
    """Make the report and say on the terminal what it says first, and what to do next."""
    make_report(notebook, report)
    if (claims := report.with_name("claims.csv")).exists():
        said = say_answer(pd.read_csv(claims)).replace("**", "").replace(". ", ".\n")
        print(f"\n{QUESTION}\n{said}\n")
    print(f"read {report}, look closer with `make lab`, play with `make demo`")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
