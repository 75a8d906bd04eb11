"""The package without the checkout: what `pip install z1lib` gives (slow: it builds a wheel)."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A bare environment with the wheel in it; what it depends on is that of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "bare"], check=True)
    bare = folder / "bare/bin/python"
    [wheel] = folder.glob("*.whl")
    subprocess.run([bare, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
    ask = [bare, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    (Path(site) / "here.pth").write_text(sysconfig.get_path("purelib"))  # searched after the wheel's own
    return bare


def run(python: Path, *words: str, **options) -> str:
    return subprocess.run([python, *words], capture_output=True, text=True, check=True, **options).stdout


def test_the_front_door_opens_without_the_checkout(python, tmp_path):
    assert "--windows" in run(python, "-P", "-m", "z1lib.eval", "--help", cwd=tmp_path)
    assert str(ROOT) not in run(python, "-P", "-c", "import z1lib; print(z1lib.__file__)", cwd=tmp_path)


def test_a_model_is_evaluated_without_the_checkout(python, tiny_model, tmp_path):
    words = ["--model", tiny_model, "--problems", "tracing", "--limit", "3", "--windows", "4", "--out", "out"]
    assert "3 of 3 problems" in run(python, "-P", "-m", "z1lib.eval", *words, "--max-answer-tokens", "4", cwd=tmp_path)
