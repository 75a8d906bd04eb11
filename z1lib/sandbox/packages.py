"""The installed packages that a program may use: what the tasks of benchmarks import, and nothing else that is here.

Among what the study has installed are benchmarks with their solutions: none of that is shown.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

from packaging.requirements import Requirement

# What programs use beside the packages that the extra `bigcodebench` lists, and what makes inputs for them.
OFTEN = (
    "numpy",
    "pandas",
    "scipy",
    "sympy",
    "matplotlib",
    "seaborn",
    "statsmodels",
    "sortedcontainers",
    "psutil",
    "pyyaml",
    "hypothesis",
    "atheris",
)


@cache
def find_packages() -> tuple[Path, ...]:
    """The files and folders of these packages and of all they need, as far as they are installed."""
    try:
        declared = [Requirement(line) for line in requires("z1lib") or ()]
    except PackageNotFoundError:  # run from a folder that was never installed
        declared = []
    asked = [one.name for one in declared if one.marker and one.marker.evaluate({"extra": "bigcodebench"})]
    base = {one.name for one in declared if not one.marker}
    todo, seen, found = [*OFTEN, *(name for name in asked if name not in base)], set(), set()
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        parts = {file.parts[0] for file in package.files or () if not file.parts[0].startswith("..")}
        found |= {Path(package.locate_file(part)) for part in parts}
        lines = (Requirement(line) for line in package.requires or ())
        todo += [one.name for one in lines if one.marker is None or one.marker.evaluate({"extra": ""})]
    return tuple(sorted(path for path in found if path.exists() and path.name != "__pycache__"))
