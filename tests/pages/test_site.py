"""The site: the executed notebooks and the report, with a page that leads to them."""

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from z1lib.pages.site import make_site
from z1lib.study import STAGES


def test_the_site_links_every_lesson_and_the_report(tmp_path):
    for i, stage in enumerate(STAGES, start=1):
        nbformat.write(new_notebook(cells=[new_markdown_cell(f"# {i} · Lesson")]), tmp_path / f"{stage}.ipynb")
    (tmp_path / "report.html").write_text("the report")
    page = make_site(tmp_path, tmp_path / "site").read_text()
    links = [f"{stage}.html" for stage in STAGES] + ["report.html"]
    assert all(f'href="{link}"' in page and (tmp_path / "site" / link).exists() for link in links)
    assert "3 · Lesson" in page


def test_an_unfinished_run_makes_no_site(tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks 01_curation.ipynb, .* `make reproduce PROFILE="):
        make_site(tmp_path, tmp_path / "site")
    assert not (tmp_path / "site").exists()
