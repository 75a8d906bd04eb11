"""What the README says runs as it says."""

import re
import subprocess
from pathlib import Path

import pytest

from z1lib.profile import load_profile

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.M))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.M | re.S)


def test_every_python_block_runs_as_written_one_after_the_other(tmp_path, tiny_model, monkeypatch):
    (tmp_path / "runs/mini/models").mkdir(parents=True)
    (tmp_path / "runs/mini/models/z1").symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["completion"].policy == "stop_at_blank_line"
    assert set(names["by_window"]) == {16, 32}
    assert names["grades"][0].rule


def test_extensions_are_short():
    assert all(len(block.splitlines()) < 20 for block in blocks("python"))


def test_the_profile_in_the_text_loads(tmp_path):
    [text] = blocks("yaml")
    (tmp_path / "mine.yaml").write_text(text)
    assert "mine" in load_profile(tmp_path / "mine.yaml").models


def test_every_make_target_in_the_text_is_there():
    asked = set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT, flags=re.M))
    assert len(asked) > 6
    assert asked <= TARGETS


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_is_one_that_make_knows(target):
    run = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", target, "NB=04_analysis"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_every_file_the_text_links_to_is_there():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (ROOT / link).exists(), link
