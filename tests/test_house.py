"""The plan of the house holds: what stands on what, what is light, and what an edit rebuilds."""

import ast
import os
import shutil
import subprocess
import sys
import time
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import nbformat
import pytest

import z1lib
from z1lib import provenance
from z1lib.study import STAGES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "z1lib"
FILES = sorted(PACKAGE.rglob("*.py"))
WINGS = ("curation", "sft", "inference", "analysis", "eval", "pages")
ROOMS = ("problems", "engines", "sandbox", "grading", "selection", "published")
HEAVY = ("torch", "transformers", "trl", "datatrove", "datasets")
TEACHERS = ("curation/teacher.py", "sft/calibration.py")  # decode, so they know the third wing: the exceptions
BORROWERS = (*TEACHERS, "curation/foresight.py")  # engines belong to the stage that is named for them


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def place(name: str) -> str:
    """The room or wing of a file, "" on the ground."""
    return name.rpartition("/")[0]


def imported(source: str) -> set[str]:
    """The files of the package that a source imports at any place."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "z1lib":
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.partition(".")[0] == "z1lib"}
    paths = [Path(*name.split(".")[1:]) for name in names]
    found = [path / "__init__.py" for path in paths] + [path.with_suffix(".py") for path in paths if path.name]
    return {path.as_posix() for path in found if (PACKAGE / path).exists()} - {"__init__.py"}


@cache
def graph() -> dict[str, set[str]]:
    return {name_of(file): imported(file.read_text()) for file in FILES}


def folder_of(name: str) -> set[str]:
    """A file of the ground, or all files of a room or wing: engines and benchmarks are loaded by name."""
    files = sorted((PACKAGE / place(name)).glob("*.*")) if place(name) else [PACKAGE / name]
    return {name_of(file) for file in files if file.suffix in (".py", ".csv")}


def closure(names: set[str]) -> set[str]:
    """All files that these use, by way of others too, folders whole, without what only a borrower needs."""
    seen, todo = set(), list(names)
    while todo:
        for name in folder_of(todo.pop()) - seen:
            seen.add(name)
            others = graph().get(name, ())
            todo += [other for other in others if name not in BORROWERS or place(other) not in ("inference", "engines")]
    return {name for name in seen if place(name) != "pages"}


def notebook_imports(stage: str) -> set[str]:
    cells = nbformat.read(ROOT / f"notebooks/{stage}.ipynb", as_version=4).cells
    return imported("\n".join(cell.source for cell in cells if cell.cell_type == "code"))


def test_the_plan_names_every_room_and_every_file_of_the_ground():
    planned = {line.split()[0] for line in z1lib.__doc__.splitlines() if line.startswith("  ")}
    ground = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    assert planned == ground | {f"{file.parent.name}/" for file in PACKAGE.glob("*/__init__.py")}
    assert {name.rstrip("/") for name in planned if name.endswith("/")} == {*ROOMS, *WINGS}


def test_the_ground_imports_nothing_of_ours_but_itself():
    assert not [
        (name, other) for name, others in graph().items() if not place(name) for other in others if place(other)
    ]


def test_a_room_knows_no_wing():
    known = [(a, b) for a, others in graph().items() if place(a) in ROOMS for b in others if place(b) in WINGS]
    assert not known


def test_no_wing_imports_a_later_one_but_a_teacher_decodes():
    later = [
        (name, other)
        for name, others in graph().items()
        for other in others
        if place(name) in WINGS and place(other) in WINGS and WINGS.index(place(name)) < WINGS.index(place(other))
    ]
    assert {name for name, _ in later} <= set(TEACHERS)
    assert {place(other) for _, other in later} <= {"inference"}


def test_no_file_imports_itself_by_way_of_others():
    # a face hands on what its files define, and they do not import it
    list(TopologicalSorter(graph()).static_order())


def test_every_file_says_what_it_is_in_its_first_line():
    for file in FILES:
        assert len((ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]) > 20, file


def test_functions_are_short():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for file in FILES for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, functions)]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in nodes}
    assert max(lengths.values()) <= 40, max(lengths, key=lengths.get)
    assert median(lengths.values()) <= 10


LOAD = """
import sys
{imports}
print(len(sys.modules), *[name for name in {heavy} if name in sys.modules])
"""


def load(imports: str) -> list[str]:
    script = LOAD.format(imports=imports, heavy=HEAVY)
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_opening_the_analysis_loads_no_model_library_and_few_modules():
    cells = nbformat.read(ROOT / "notebooks/04_analysis.ipynb", as_version=4).cells
    imports = [
        ast.unparse(node)
        for cell in cells
        if cell.cell_type == "code"
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    modules, *heavy = load("\n".join(imports))
    assert not heavy
    assert int(modules) < 2200


@pytest.mark.parametrize("room", [*ROOMS, *WINGS])
def test_a_face_is_light(room):
    assert load(f"import z1lib.{room}")[1:] == []


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A copy of the project in which every notebook of `mini` has just been run."""
    folder = tmp_path_factory.mktemp("house") / "a folder with spaces"
    for part in ("Makefile", "pyproject.toml", "profiles", "notebooks", "z1lib"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, folder / part)
    for age, stage in enumerate([*STAGES, "report"]):
        file = folder / "runs/mini" / (f"{stage}.html" if stage == "report" else f"{stage}.ipynb")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (time.time() + 10 + age,) * 2)
    return folder


def rebuilt(folder: Path, edited: str) -> set[str]:
    """What make would make again if this file were edited now."""
    command = ["make", "-n", "-o", "own", "-W", edited, "runs/mini/report.html"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return {stage for stage in STAGES if f"z1lib.pages.terminal  {stage}" in run.stdout} | (
        {"report"} if "z1lib.pages.report" in run.stdout else set()
    )


def test_nothing_is_rebuilt_where_nothing_was_edited(made):
    assert rebuilt(made, "README.md") == set()


@cache
def users(stage: str) -> set[str]:
    return closure({name for name in notebook_imports(stage) if place(name) != "pages"})


UNUSED = {"__init__.py", "exercises.py"}  # the plan, and what only a solution of an exercise calls


def test_an_edit_of_any_file_that_a_stage_uses_runs_that_stage_and_those_behind_it(made):
    """`pages` shows results and decides none: an edit there makes the report anew and trains or decodes nothing."""
    for name in sorted({name for file in FILES for name in folder_of(name_of(file))}):
        stages = [i for i, stage in enumerate(STAGES) if name in users(stage)]
        assert stages or name in UNUSED or place(name) in ("eval", "pages"), f"{name} decides nothing?"
        wanted = {*STAGES[min(stages) :], "report"} if stages else set()
        assert wanted <= rebuilt(made, f"z1lib/{name}"), name
        if place(name) == "pages":
            assert rebuilt(made, f"z1lib/{name}") == {"report"}, name


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_that_is_hashed_is_what_a_stage_uses(stage):
    found = provenance.find_code(provenance.read_notebook(ROOT / f"notebooks/{stage}.ipynb"))
    shows = {f"{name}.py" for name in provenance.SHOWING}
    assert {name_of(file) for file in found} == users(stage) - shows


def test_an_edit_of_a_profile_or_of_one_it_is_like_runs_everything(made):
    (made / "profiles/mini.yaml").write_text("like: paper\n" + (made / "profiles/mini.yaml").read_text())
    os.utime(made / "profiles/mini.yaml", (0, 0))
    assert rebuilt(made, "profiles/paper.yaml") == {*STAGES, "report"}
    assert rebuilt(made, "profiles/colab.yaml") == set()


def test_a_misspelt_profile_or_notebook_gets_the_nearest_name():
    run = subprocess.run(["make", "reproduce", "PROFILE=minni"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode != 0
    assert "no profile 'minni', did you mean 'mini'?" in run.stderr
    run = subprocess.run(["make", "-o", "own", "only", "NB=4_analisis"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode != 0
    assert "no notebook '4_analisis', did you mean 04_analysis?" in run.stdout


def test_a_venv_of_another_checkout_is_refused(tmp_path):
    for name in ("Makefile", "pyproject.toml", "profiles"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(ROOT / ".venv/bin")
    (tmp_path / ".venv/.ready").touch()
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "PYTHONPATH")}
    run = subprocess.run(["make", "own"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode != 0
    assert "has the z1lib of another folder" in run.stderr
