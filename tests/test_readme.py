"""What the README and the pages of docs/ say runs as they say."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from z1lib.profile import load_profile

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.M))


def blocks(language: str) -> list[str]:
    text = TEXT + (ROOT / "docs/EXTENDING.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


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
    assert "mine" in load_profile(tmp_path / "mine.yaml").inference.models


def test_every_make_target_in_the_text_is_there():
    asked = set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT, flags=re.M))
    assert len(asked) > 6
    assert asked <= TARGETS


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_is_one_that_make_knows(target):
    run = subprocess.run(
        ["make", "-n", "-o", "own", target, "NB=04_analysis"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


PAGES = {name.name: name.read_text() for name in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
TEXTS = PAGES | {
    path.name: "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}
COMMANDS = re.compile(
    r"(?:`|^ *)((?:make|pip|python|conda|accelerate|vllm|hf|git|jupyter) [^`\n]*(?:\n[^`\n]+)?)(?=`|$)", re.M
)
# Commands that cannot run in a test: they need a hub, conda or a cluster. Their parts are checked elsewhere.
ELSEWHERE = {
    "conda env create -f environment.yml": "test_conda_and_pip_have_the_same_pins",
    "vllm serve": "test_server.py and test_vllm.py start it",
    "accelerate launch": "test_two_machines_learn_what_one_process_learns",
}


def commands() -> list[tuple[str, str]]:
    found = [(name, " ".join(match[1].split())) for name, text in TEXTS.items() for match in COMMANDS.finditer(text)]
    return found


def test_the_texts_show_commands():
    assert len(commands()) > 15


@pytest.mark.parametrize(("name", "command"), sorted(set(commands())))
def test_every_command_in_the_texts_is_one_that_is_there(name, command):
    """A target that make has, an extra that pip finds, a module with these options; the rest is tested by name."""
    if command.startswith("make "):
        assert re.split(r"[ #]", command)[1] in TARGETS
    elif command.startswith("pip install"):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = re.search(r"\[(.*)\]", command)  # without an extra: the package alone
        assert not asked or set(asked[1].split(",")) <= set(extras)
    elif command.startswith("python -m z1lib"):
        module, options = command.split()[2], re.findall(r"--[a-z-]+", command)
        shown = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert set(options) <= set(re.findall(r"--[a-z-]+", shown))
    elif command.startswith("python benchmarks"):
        assert (ROOT / command.split()[1]).exists()
    else:
        assert any(command.startswith(known) for known in ELSEWHERE), command


def test_the_speeds_are_those_of_the_benchmarks_files(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import speeds

    assert f"generated -->\n{speeds.write_speeds()}<!-- end" in (ROOT / "docs/SPEEDS.md").read_text()


def test_the_power_of_the_claims_is_that_of_the_simulations_file(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import power

    assert f"generated -->\n{power.write_power()}<!-- end of power" in (ROOT / "docs/CLAIMS.md").read_text()
    table = pd.read_csv(ROOT / "benchmarks/power.csv")
    assert table.coverage.between(0.93, 0.97).all()


def test_what_the_text_says_of_training_on_a_gpu_is_what_was_measured():
    text = (ROOT / "docs/GPU.md").read_text()
    table = pd.read_csv(ROOT / "benchmarks" / "gpu_training.csv")
    table = table[table.attention == "by_example"].assign(device=table.device.str.split().str[1])
    big = table[table.device == "H200"]
    assert len(big) == 4
    allocated, reserved = (big["estimated GiB"] / big[f"{kind} GiB"] for kind in ("peak", "reserved"))
    for shares, what in (
        (allocated, "of the peak that four trainings allocated"),
        (reserved, "of what PyTorch reserved"),
    ):
        assert f"{shares.min():.2f} to {shares.max():.2f} {what}" in " ".join(text.split())
    states = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    table = table.set_index(["profile", "model", "device"])
    for name, device in (("single_gpu", "H100"), ("paper", "H200")):
        row = table.loc[(name, "7B", device)]
        assert f"{row['peak GiB']:.1f} GiB, {round(row['tokens/s'], -2):,.0f} tokens/s on an {device}" in states[name]
    assert f"{table.loc[('colab', '1.5B', 'H200'), 'peak GiB']:.1f} GiB at the longest batch" in states["colab"]


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda page: page.name)
def test_every_file_a_text_links_to_is_there(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_readme_is_short_and_shows_one_figure_and_one_table_of_results():
    assert len(TEXT.split()) <= 1600
    results = TEXT.split("<!-- results: generated -->")[1].split("<!-- end of results -->")[0]
    assert results.count("![") == 1
    assert len(re.findall(r"^\|:?-", results, flags=re.M)) == 1
