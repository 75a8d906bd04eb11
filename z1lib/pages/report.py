"""`report.html`: the executed analysis notebook as one page that needs nothing else, without its code.

`python -m z1lib.pages.report runs/mini/04_analysis.ipynb runs/mini/report.html`, or `make reproduce`.
"""

import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from z1lib.files import written_whole

# The notebook's plain body has no style of its own; wide tables and pictures must not push a narrow page sideways.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
body {{ max-width: 60rem; margin: auto; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: #222; }}
img, svg {{ max-width: 100%; height: auto; }}
pre, .jp-RenderedHTMLCommon, .output_html, .output_subarea {{ overflow-x: auto; overflow-wrap: anywhere; }}
table {{ display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.85rem; margin: 1rem 0; }}
th, td {{ padding: 0.15rem 0.6rem; border-bottom: 1px solid #ddd; text-align: right; }}
td {{ max-width: 24rem; }}
a.anchor-link, .prompt, .jp-InputPrompt, .jp-OutputPrompt {{ display: none; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def make_report(notebook: Path, report: Path) -> Path:
    """Write the page: text, tables and figures of an executed notebook, pictures inside. Whole or absent.

    Raises ValueError naming the notebook if it was not executed.
    """
    node = nbformat.read(notebook, as_version=4)
    if not any(cell.get("outputs") for cell in node.cells):
        raise ValueError(f"{notebook} has no outputs: it was not executed")
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_input_prompt=True)
    node.cells.pop()  # the exercises
    title = node.cells[0].source.splitlines()[0]
    node.cells[0].source = title  # without the badge, a picture from elsewhere
    body, _ = exporter.from_notebook_node(node)
    with written_whole(report) as unfinished:
        unfinished.write_text(PAGE.format(title=title.lstrip("# "), body=body), encoding="utf-8")
    return report


if __name__ == "__main__":
    print(make_report(*map(Path, sys.argv[1:])))
