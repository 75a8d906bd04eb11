"""The report is one page that needs nothing else."""

import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from z1lib.pages.report import QUESTION, make_report

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def save(path, outputs: list):
    cells = [
        new_markdown_cell("# A title\n\n[![badge](https://example.org/badge.svg)](https://example.org)"),
        new_code_cell("settings"),
        new_markdown_cell("## The answer"),
        new_code_cell("secret = 1", outputs=outputs),
        new_markdown_cell("## Details & more"),
        new_markdown_cell("Below."),
        new_markdown_cell("## Exercises"),
    ]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_the_report_holds_text_and_pictures_and_no_code(tmp_path):
    picture = new_output("display_data", data={"image/png": PIXEL, "text/plain": "a figure"})
    page = make_report(save(tmp_path / "a.ipynb", [picture]), tmp_path / "report.html").read_text()
    assert f"<title>{QUESTION}</title>" in page
    assert "A title" not in page
    assert f"data:image/png;base64,{PIXEL}" in page
    assert "secret" not in page
    assert "Exercises" not in page
    assert not re.findall(r"(?:src|href)=[\"\']?https?:", page)
    assert "<script" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ipynb", "report.html"]


def outputs_of(tmp_path, *outputs: dict) -> BeautifulSoup:
    shown = [new_output("display_data", data=data) for data in outputs]
    page = make_report(save(tmp_path / "a.ipynb", shown), tmp_path / "report.html")
    return BeautifulSoup(page.read_text(), "html.parser")


def test_the_answer_is_open_and_the_rest_is_folded_by_section(tmp_path):
    page = outputs_of(tmp_path, {"text/plain": "a result"})
    assert page.find("h2").get_text().startswith("The answer")
    assert [fold.summary.get_text() for fold in page.find_all("details")] == ["Details & more"]
    assert "Below." in page.find("details").get_text()
    assert not page.find("details").has_attr("open")


def test_where_the_numbers_come_from_is_said_first(tmp_path):
    save(tmp_path / "a.ipynb", [new_output("display_data", data={"text/plain": "a result"})])
    notebook = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    notebook.cells[1].outputs = [
        new_output("stream", name="stderr", text="a warning of a library"),
        new_output("display_data", data={"text/markdown": "Not made here yet."}),
    ]
    nbformat.write(notebook, tmp_path / "a.ipynb")
    said = BeautifulSoup(make_report(tmp_path / "a.ipynb", tmp_path / "r.html").read_text(), "html.parser").get_text()
    assert said.index("The answer") < said.index("Not made here yet.") < said.index("a result")


def test_numbers_do_not_break_and_words_may(tmp_path):
    table = "<table><tr><td>0.46 [0.37, 0.55]</td><td>-0.04</td><td>tracing, 3 of 4</td><td>nan</td></tr></table>"
    page = outputs_of(tmp_path, {"text/html": table})
    assert [cell["class"] for cell in page.find_all("td")] == [["number"], ["number"], ["text"], ["number"]]
    assert page.table.parent["class"] == ["scroll"]


def test_a_caption_is_the_text_of_its_picture(tmp_path):
    picture = {"image/png": PIXEL, "text/plain": "a figure"}
    page = outputs_of(tmp_path, picture, {"text/markdown": "*Figure `curve`.* Accuracy, all tokens."})
    assert page.img["alt"] == "Figure curve. Accuracy, all tokens."


def test_nothing_that_a_model_wrote_runs_in_the_report(tmp_path):
    hostile = "<p onclick='x()'>text<script>alert(1)</script><img src=x onerror=y><iframe src='x'></iframe></p>"
    page = outputs_of(tmp_path, {"text/html": hostile})
    assert "text" in page.get_text()
    assert page.find_all(["script", "iframe"]) == []
    assert not [tag for tag in page.find_all(True) if any(name.startswith("on") for name in tag.attrs)]


def test_a_notebook_that_was_not_executed_makes_no_report(tmp_path):
    with pytest.raises(ValueError, match="a.ipynb has no outputs"):
        make_report(save(tmp_path / "a.ipynb", []), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
