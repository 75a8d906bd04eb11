"""The report is one page that needs nothing else."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from z1lib.pages.report import make_report

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def save(path, outputs: list):
    cells = [
        new_markdown_cell("# A title\n\n[![badge](https://example.org/badge.svg)](https://example.org)"),
        new_code_cell("secret = 1", outputs=outputs),
        new_markdown_cell("## Exercises"),
    ]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_the_report_holds_text_and_pictures_and_no_code(tmp_path):
    picture = new_output("display_data", data={"image/png": PIXEL, "text/plain": "a figure"})
    page = make_report(save(tmp_path / "a.ipynb", [picture]), tmp_path / "report.html").read_text()
    assert "<title>A title</title>" in page
    assert f"data:image/png;base64,{PIXEL}" in page
    assert "secret" not in page
    assert "Exercises" not in page
    assert not re.findall(r"(?:src|href)=[\"\']?https?:", page)
    assert "<script" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ipynb", "report.html"]


def test_a_notebook_that_was_not_executed_makes_no_report(tmp_path):
    with pytest.raises(ValueError, match="a.ipynb has no outputs"):
        make_report(save(tmp_path / "a.ipynb", []), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
