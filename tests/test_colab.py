"""The set-up cell of the notebooks as Colab runs it: its Python and packages, a clone of the tag, what is lacking."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest

from z1lib.pages import colab
from z1lib.pages.colab import OWN
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
    assert f"-b {TAG} {ADDRESS} /content/z1" in setup.source


def test_the_set_up_is_the_same_in_every_notebook():
    assert len({cells(stage)[2].source for stage in STAGES}) == 1


def test_the_tag_that_badges_and_set_up_name_is_there():
    tags = subprocess.run(["git", "tag"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if TAG not in tags:
        pytest.skip(f"{TAG} is not tagged in this checkout: until it is, badges and the set-up on Colab lead nowhere")
    shown = subprocess.run(["git", "show", f"{TAG}:pyproject.toml"], cwd=ROOT, capture_output=True, text=True).stdout
    assert tomllib.loads(shown)["project"]["version"] == PROJECT["version"]


def test_a_package_that_was_in_use_and_is_replaced_starts_the_kernel_again(monkeypatch, capsys):
    versions, ended = {"pyarrow": "18.1.0", "numpy": "2.1.3"}, []
    monkeypatch.setattr(colab, "_distributions", lambda: {"pyarrow", "numpy"})
    monkeypatch.setattr(colab, "_version", versions.get)
    monkeypatch.setattr(colab, "restart", lambda: ended.append(True))
    monkeypatch.setattr(colab.subprocess, "run", lambda command, check: versions.update(pyarrow="26.0.1"))
    colab.install(ROOT)
    assert ended == [True]
    assert "pyarrow was in use and is new now" in capsys.readouterr().out
    colab.install(ROOT)
    assert ended == [True]


def test_what_is_colabs_own_is_held(monkeypatch):
    held = []
    monkeypatch.setattr(colab, "_version", {"torch": "2.11.0+cu128", "numpy": "2.1.3"}.get)
    monkeypatch.setattr(colab.subprocess, "run", lambda command, check: held.append(Path(command[6]).read_text()))
    colab.install(ROOT)
    assert held == ["torch==2.11.0+cu128\nnumpy==2.1.3"]


def test_runs_on_drive_are_the_runs_of_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(colab, "FOLDER", tmp_path / "study")
    (tmp_path / "study").mkdir()
    for _ in range(2):  # after a restart again
        colab.keep_runs(tmp_path / "drive/z1-runs")
    (tmp_path / "study/runs/mini").mkdir()
    assert (tmp_path / "drive/z1-runs/mini").is_dir()


# Of Colab's list of packages (github.com/googlecolab/backend-info, pip-freeze.txt, August 2026, Python 3.13) those that
# the study also uses.
COLABS = [
    "accelerate==1.14.0",
    "aiofiles==25.1.0",
    "bleach==6.4.0",
    "datasets==4.0.0",
    "httpx==0.28.1",
    "huggingface_hub==1.27.0",
    "ipykernel==6.17.1",
    "ipython==7.34.0",
    "ipywidgets==7.7.1",
    "matplotlib==3.10.0",
    "nbconvert==7.17.1",
    "nbformat==5.11.1",
    "notebook==6.5.7",
    "numpy==2.1.3",
    "orjson==3.12.0",
    "packaging==26.3",
    "pandas==2.2.3",
    "peft==0.20.0",
    "psutil==5.9.5",
    "pyarrow==18.1.0",
    "pydantic==2.13.4",
    "scipy==1.16.3",
    "seaborn==0.13.2",
    "statsmodels==0.14.6",
    "sympy==1.14.0",
    "tokenizers==0.22.2",
    "torch==2.11.0",
    "tqdm==4.67.3",
    "transformers==5.15.0",
]


@pytest.mark.colab
def test_the_set_up_cell_runs_beside_colabs_packages_and_after_the_restart_the_first_cells(tmp_path):
    python = shutil.which("python3.13")
    if python is None or COLAB.exists():
        pytest.skip("needs python3.13 on the PATH and no /content")
    published, bare = tmp_path / "published", tmp_path / "bare/bin/python"
    subprocess.run(["git", "clone", "-q", ROOT, published], check=True)
    subprocess.run(["git", "-C", published, "tag", "-f", TAG], check=True)
    subprocess.run([python, "-m", "venv", tmp_path / "bare"], check=True)
    subprocess.run([bare, "-m", "pip", "install", "-q", *COLABS], check=True)
    here = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{published}.insteadOf", "GIT_CONFIG_VALUE_0": ADDRESS}
    cell = cells("04_analysis")
    program = "import pandas, pyarrow\n"  # as Colab's kernel has them loaded
    program += (
        "\n\n".join(cell[i].source for i in (2, 3, 4, 5)) + "\nprint(profile, len(grades), study.reads_committed)"
    )

    def run() -> subprocess.CompletedProcess:
        environment = {**os.environ, **here, "PATH": f"{bare.parent}:{os.environ['PATH']}", "COLAB_RELEASE_TAG": "1"}
        return subprocess.run([bare, "-c", program], env=environment, cwd=COLAB, capture_output=True, text=True)

    COLAB.mkdir()
    try:
        first, second = run(), run()
    finally:
        shutil.rmtree(COLAB)
    assert (first.returncode, "run the cells from the top" in first.stdout) == (-9, True), first.stderr[-3000:]
    assert second.returncode == 0, second.stderr[-3000:]
    assert second.stdout.splitlines()[-1].split()[::2] == ["mini", "True"]
    lines = subprocess.run([bare, "-m", "pip", "freeze"], capture_output=True, text=True).stdout.lower().splitlines()
    assert {f"{name}=={version}" for name, version in (one.split("==") for one in COLABS) if name in OWN} <= set(lines)
