"""`make site`: the executed notebooks with their outputs and the report as static pages, in `site/`.

The slider of notebook 03 works there too: everything it shows is in the page.
"""

import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from z1lib.files import written_whole
from z1lib.pages.report import QUESTION
from z1lib.study import STAGES

INDEX = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Z1: thinking less, with code</title>
<style>body {{ max-width: 40rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.6 system-ui, sans-serif; }}</style>
</head>
<body>
<h1>{question}</h1>
<p><a href="report.html">The answer</a>, and the four lessons that lead to it, as they ran in profile {profile}:</p>
<ul>
{lessons}
</ul>
</body>
</html>
"""


def make_site(run: Path, site: Path) -> Path:
    """Write the site of a finished run. Raises FileNotFoundError naming what the run lacks; nothing is written then."""
    needed = [run / f"{stage}.ipynb" for stage in STAGES] + [run / "report.html"]
    if lacking := [file.name for file in needed if not file.exists()]:
        raise FileNotFoundError(f"{run} lacks {', '.join(lacking)}: `make reproduce PROFILE={run.name}` finishes it")
    site.mkdir(parents=True, exist_ok=True)
    lessons = []
    for stage in STAGES:
        notebook = nbformat.read(run / f"{stage}.ipynb", as_version=4)
        body, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
        _write(site / f"{stage}.html", body)
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        lessons.append(f'<li><a href="{stage}.html">{title}</a></li>')
    shutil.copy(run / "report.html", site)
    page = INDEX.format(question=QUESTION, profile=run.name, lessons="\n".join(lessons))
    return _write(site / "index.html", page)


def _write(file: Path, text: str) -> Path:
    with written_whole(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return file


if __name__ == "__main__":
    try:
        print(f"open {make_site(*map(Path, sys.argv[1:]))}")
    except FileNotFoundError as error:
        sys.exit(str(error))
