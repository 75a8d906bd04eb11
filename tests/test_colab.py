"""The set-up cell of the notebooks as Colab runs it: a bare Python 3.12, a clone of the tag, the pins."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest

from z1lib.study import STAGES

ROOT = Path(__file__).parent.parent
COLAB = Path("/content")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS, TAG = PROJECT["urls"]["Repository"], f"v{PROJECT['version']}"


def cells(stage: str) -> list:
    return nbformat.read(ROOT / "notebooks" / f"{stage}.ipynb", as_version=4).cells


@pytest.mark.parametrize("stage", STAGES)
def test_badge_and_set_up_name_the_address_and_the_tag_of_this_version(stage):
    title, _, setup, *_ = cells(stage)
    page = ADDRESS.removeprefix("https://")
    assert f"https://colab.research.google.com/{page.split('.')[0]}/" in title.source
    assert title.source.endswith(f"{page.partition('/')[2]}/blob/{TAG}/notebooks/{stage}.ipynb)")
    assert f"-b {TAG} {ADDRESS} " in setup.source


def test_the_set_up_is_the_same_in_every_notebook():
    assert len({cells(stage)[2].source for stage in STAGES}) == 1


@pytest.mark.colab
def test_the_set_up_cell_makes_a_bare_python_run_the_first_cells(tmp_path):
    python = shutil.which("python3.12")
    if python is None or COLAB.exists():
        pytest.skip("needs python3.12 on the PATH and no /content")
    published = tmp_path / "published"
    subprocess.run(["git", "clone", "-q", ROOT, published], check=True)
    subprocess.run(["git", "-C", published, "tag", "-f", TAG], check=True)
    subprocess.run([python, "-m", "venv", tmp_path / "bare"], check=True)
    COLAB.mkdir()
    here = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{published}.insteadOf", "GIT_CONFIG_VALUE_0": ADDRESS}
    cell = cells("04_analysis")
    program = "\n\n".join(cell[i].source for i in (2, 3, 4, 5)) + "\nprint(len(grades), study.reads_committed)"
    try:
        run = subprocess.run(
            [tmp_path / "bare/bin/python", "-c", program],
            env={
                **os.environ,
                **here,
                "PATH": f"{tmp_path / 'bare/bin'}:{os.environ['PATH']}",
                "COLAB_RELEASE_TAG": "1",
            },
            cwd=COLAB,
            capture_output=True,
            text=True,
        )
    finally:
        shutil.rmtree(COLAB)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.splitlines()[-1].endswith("True")
