"""The contract of the notebooks, and the whole chain on `smoke` as a reader would start it."""

import ast
import inspect
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from z1lib.files import read_jsonl
from z1lib.pages import terminal
from z1lib.profile import PROFILES
from z1lib.records import POOL, Completion
from z1lib.study import STAGES

ROOT = Path(__file__).parent.parent
PARAMETERS = {"profile": "mini", "runs_dir": "../runs"}


@pytest.fixture(params=STAGES)
def notebook(request):
    return nbformat.read(ROOT / "notebooks" / f"{request.param}.ipynb", as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_opens_like_the_others(notebook):
    title, purpose, setup, parameters, imports, study = notebook.cells[:6]
    assert re.match(r"# \d · ", title.source)
    for word in ("**Purpose.**", "**You will learn**", "reads", "writes", "CPU"):
        assert word in purpose.source
    assert "make setup" in purpose.source
    assert len(setup.source.splitlines()) < 12
    assert "parameters" in parameters.metadata.tags
    assert "import" in imports.source
    assert "settings = load_profile(profile)" in study.source


def test_the_parameters_cell_is_tagged_once_and_literal(notebook):
    [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    values = {node.targets[0].id: node.value for node in ast.parse(cell.source).body}
    asked = values["profile"]  # of the environment, where the set-up on Colab has chosen
    assert ast.unparse(asked.func) == "os.environ.get"
    values["profile"] = asked.args[1]
    assert {name: ast.literal_eval(value) for name, value in values.items()} == PARAMETERS


def test_make_passes_the_parameters_the_notebooks_have():
    """papermill only warns of a parameter that no cell has, and goes on with the default."""
    source = inspect.getsource(terminal._papermill)
    assert set(re.findall(r'"-p", "(\w+)"', source)) == set(PARAMETERS)


def test_it_is_stripped_of_outputs(notebook):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(notebook))


def test_cells_are_short_and_hold_no_long_function(notebook):
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 15, cell.source
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno <= 5, node.name


def test_it_has_as_much_prose_as_code_and_ends_with_exercises(notebook):
    assert 2 * len(code_cells(notebook)) <= len(notebook.cells)
    assert notebook.cells[-1].source.startswith("## Exercises")
    assert len(re.findall(r"^\d\. ", notebook.cells[-1].source, flags=re.M)) >= 3


def bound(source: str) -> list[str]:
    """The names a cell binds, but for those inside comprehensions, which end there."""
    tree = ast.parse(source)
    inner = {
        id(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda)
        for name in ast.walk(node)
    }
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    aliases = [
        alias for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    ]
    return [node.id for node in names if id(node) not in inner] + [alias.asname or alias.name for alias in aliases]


def test_no_name_is_bound_twice(notebook):
    """So a cell may be run again, and a name means one thing from the first cell to the last."""
    names = Counter(name for cell in code_cells(notebook) for name in set(bound(cell.source)))
    assert not [name for name, count in names.items() if count > 1]


def test_no_profile_takes_another_path_through_the_code():
    for path in [*ROOT.glob("z1lib/**/*.py"), *ROOT.glob("notebooks/*.ipynb")]:
        assert not re.search(r"if .*(smoke|profile\.name)", path.read_text()), path


def environment_of(folder: Path) -> dict[str, str]:
    """This environment, with the package of a cloned project in the place of the installed one."""
    return {**{key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}, "PYTHONPATH": str(folder)}


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = environment_of(folder)
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, env=environment)


def clone_project(folder: Path) -> Path:
    """The files of the project in a new folder, with this environment as its .venv."""
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "profiles", "notebooks", "z1lib"):
        source = ROOT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy2(source, folder)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The project in a new folder after one smoke run."""
    folder = clone_project(tmp_path_factory.mktemp("chain") / "clone")
    run = make(folder, "-o", "own", "reproduce", "PROFILE=smoke")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return folder


MODELS = {"base", "z1", "r1", "z1_sure", "z1_sure.samples"}


def test_the_smoke_chain_makes_every_artifact(clone):
    made = {path.name for path in (clone / "runs/smoke").iterdir()}
    assert made >= {f"{stage}.ipynb" for stage in STAGES}
    assert made >= {"sft.parquet", "rejected.jsonl", "DATASET_CARD.md"}
    assert made >= {f"{name}.jsonl" for name in POOL} | {"rules.csv"}
    assert made >= {"sft.jsonl", "completions.jsonl", "grades.jsonl", "summary.csv", "provenance.json", "models"}
    assert "report.html" in made
    assert {path.name for path in (clone / "runs/smoke/models").iterdir() if path.is_dir()} == MODELS
    figures = {path.stem for path in (clone / "runs/smoke/figures").glob("*.png")}
    assert figures >= {
        "length_distribution",
        "length_bins",
        "trigram_contrast",
        "training_loss",
        "accuracy_by_thinking",
        "hints",
        "window_errors",
        "longer_or_wider",
        "reliability",
    }
    assert figures == {path.stem for path in (clone / "runs/smoke/figures").glob("*.pdf")}
    tables = {path.name for path in (clone / "runs/smoke/figures/tables").iterdir()}
    assert tables >= {"summary.md", "summary.tex", "errors.md", "errors.tex"}


def test_the_profile_asked_for_is_the_profile_run(clone):
    """Without its tag the parameters cell would win over papermill's, and the run would be of `mini`."""
    assert not (clone / "runs/mini").exists()


def test_every_completion_of_the_run_accounts_for_its_tokens(clone):
    rows = read_jsonl(clone / "runs/smoke/completions.jsonl", Completion)
    assert len(rows) > 500
    for row in rows:
        assert row.thinking_tokens + row.hint_tokens + row.answer_tokens == len(row.token_ids)


def test_the_executed_notebooks_say_that_smoke_numbers_mean_nothing(clone):
    assert "smoke run, numbers mean nothing" in (clone / "runs/smoke/04_analysis.ipynb").read_text()


def test_the_executed_notebooks_hold_no_warning(clone):
    for stage in STAGES:
        for cell in code_cells(nbformat.read(clone / f"runs/smoke/{stage}.ipynb", as_version=4)):
            warnings = [output.text for output in cell.outputs if output.get("name") == "stderr"]
            # Checkpoints of smoke are made within a second, and transformers then goes by their numbers.
            assert not [text for text in warnings if "mtime may not be reliable" not in text], stage


def test_a_second_run_does_nothing(clone):
    before = {path: path.stat().st_mtime_ns for path in (clone / "runs").rglob("*.ipynb")}
    run = make(clone, "-o", "own", "reproduce", "PROFILE=smoke")
    assert run.returncode == 0
    assert "==" not in run.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (clone / "runs").rglob("*.ipynb")}


def test_a_notebook_that_fails_never_counts_as_done_and_is_named(clone):
    file = clone / "runs/smoke/completions.jsonl"
    whole = file.read_text()
    file.write_text('{"problem_id": "tracing-0", "mod')
    run = make(clone, "-o", "own", "only", "NB=04_analysis", "PROFILE=smoke")
    file.write_text(whole)
    assert run.returncode != 0
    assert "04_analysis failed" in run.stdout
    assert "runs/smoke/04_analysis.log" in run.stdout
    assert "completions.jsonl, line 1: not valid JSON" in run.stdout
    assert not (clone / "runs/smoke/04_analysis.ipynb").exists()


def test_an_unknown_profile_lists_those_there_are(clone):
    run = make(clone, "-o", "own", "reproduce", "PROFILE=huge")
    assert run.returncode != 0
    assert " ".join(sorted(file.stem for file in PROFILES.glob("*.yaml"))) in run.stdout + run.stderr


@pytest.mark.parametrize("name", ["03_windowed_inference", "04_analysis", "exercises/04_analysis"])
def test_a_later_notebook_opens_from_the_committed_artifacts_where_nothing_was_run(tmp_path, name):
    folder = clone_project(tmp_path / "clone")
    shutil.copytree(ROOT / "figures", folder / "figures")
    file = folder / "notebooks" / f"{name}.ipynb"
    command = [".venv/bin/papermill", str(file), "out.ipynb", "--cwd", str(file.parent), "-k", "python3"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment_of(folder))
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Not made here yet" in (folder / "out.ipynb").read_text()
    made = {path.name for path in (folder / "runs/mini").iterdir()}
    assert not made & {
        "provenance.json",
        "summary.csv",
    }  # looking is no run, and `make verify` must not take it for one


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_solutions_of_the_exercises_run(clone, stage):
    command = ["../../.venv/bin/papermill", f"{stage}.ipynb", f"{clone}/{stage}.solved.ipynb", "-k", "python3"]
    command += ["-p", "profile", "smoke"]
    folder = clone / "notebooks/exercises"
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment_of(clone))
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_cell_may_be_run_again(clone, stage):
    """As a student does: each cell twice. Only the parameters stay as papermill set them."""
    notebook = nbformat.read(clone / f"notebooks/{stage}.ipynb", as_version=4)
    doubled = []
    for cell in notebook.cells:
        doubled.append(cell)
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            doubled.append(nbformat.v4.new_code_cell(cell.source))
    notebook.cells = doubled
    nbformat.write(notebook, clone / f"notebooks/{stage}.twice.ipynb")
    command = ["../.venv/bin/papermill", f"{stage}.twice.ipynb", f"{clone}/{stage}.twice.ipynb", "-k", "python3"]
    command += ["-p", "profile", "smoke"]
    environment = environment_of(clone)
    run = subprocess.run(command, cwd=clone / "notebooks", capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.parametrize("stage", STAGES)
def test_every_exercise_has_a_solution(stage):
    asked = nbformat.read(ROOT / f"notebooks/{stage}.ipynb", as_version=4).cells[-1].source
    solved = nbformat.read(ROOT / f"notebooks/exercises/{stage}.ipynb", as_version=4)
    numbers = re.findall(r"^(\d)\. ", asked, flags=re.M)
    assert [
        number for cell in solved.cells for number in re.findall(r"^## (\d)\. ", cell.source, flags=re.M)
    ] == numbers
    test_cells_are_short_and_hold_no_long_function(solved)
