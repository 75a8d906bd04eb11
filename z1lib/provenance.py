"""What a result was made by: the commit, the code, the machine, the versions; noted beside it."""

import ast
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy", "pandas", "math-verify")
VECTOR_UNITS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")  # as the kernel names them
SHOWING = ("pages", "plots", "progress")  # they show results and decide none
PACKAGE = Path(__file__).parent
# A teacher decodes, as does a model that learns from its own answers, and what decodes later is tried: engines belong
# to the stage that is named for them.
BORROWERS = tuple(PACKAGE / name for name in ("curation/teacher.py", "curation/foresight.py", "sft/calibration.py"))
CPUINFO = Path("/proc/cpuinfo")


def commit() -> str:
    """The commit of the code, "-dirty" if tracked files differ from it; "unknown" outside a checkout.

    The figures and the tables of the benchmarks do not count: a run writes them anew.
    """
    git = ["git", "-C", str(PACKAGE.parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        status = [*git, "status", "--porcelain", "-uno", "--", ".", ":!figures", ":!benchmarks/*.csv"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def hash_code(source: str) -> str:
    """A hash of a source and of all of this package that it uses: what it imports, by way of others too, and the whole
    folder of it with its tables, since engines and benchmarks are loaded by name.

    Of what runs: comments, docstrings and layout do not count, and every Python gives the same.
    """
    digest = hashlib.sha256(repr(_what_runs(ast.parse(source))).encode())
    for file in find_code(source):
        code = repr(_what_runs(ast.parse(file.read_bytes()))).encode() if file.suffix == ".py" else file.read_bytes()
        digest.update(code)
    return digest.hexdigest()[:16]


def read_notebook(notebook: Path) -> str:
    """The source of a notebook's code cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def find_code(source: str) -> list[Path]:
    """The files of this package that a source uses (see `hash_code`), in order.

    Without what BORROWERS decode with.
    """
    found: set[Path] = set()
    todo = [(None, source)]
    while todo:
        file, text = todo.pop()
        names = set(_imports(ast.parse(text)))
        if file in BORROWERS:
            names = {name for name in names if not name.startswith(("z1lib.engines", "z1lib.inference"))}
        fresh = {one for name in names for one in _files_of(name)} - found
        found |= fresh
        todo += [(one, one.read_text(encoding="utf-8")) for one in fresh if one.suffix == ".py"]
    return sorted(found)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _files_of(module: str) -> list[Path]:
    """The file of a module on the ground, or all of the folder it is in; none of what decides no result."""
    root, _, rest = module.partition(".")
    folder = PACKAGE / rest.partition(".")[0]
    if root != PACKAGE.name or not rest or folder.name in SHOWING:
        return []
    files = [folder.with_suffix(".py"), *folder.glob("*.py"), *folder.glob("*.csv")]
    return [file for file in files if file.exists()]


def _what_runs(node: object) -> object:
    """A syntax tree as nested tuples of names and plain values, without docstrings and what is empty."""
    if isinstance(node, list):
        return [_what_runs(one) for one in node]
    if not isinstance(node, ast.AST):
        return node
    values = dict(ast.iter_fields(node))
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if isinstance(node, scopes) and ast.get_docstring(node, clean=False) is not None:
        values["body"] = values["body"][1:]
    told = [(name, _what_runs(value)) for name, value in values.items() if value not in (None, [])]
    return (type(node).__name__, *told)


def processor() -> str:
    """The processor's model and the vector units that decide how fast it trains and how it rounds."""
    flags = _cpuinfo("flags") or _cpuinfo("Features") or ""
    units = [name for name in VECTOR_UNITS if name in flags.split()]
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(units) or 'no vector units known'})"


def _cpuinfo(key: str) -> str | None:
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def environment() -> dict:
    """Hardware and versions that numbers depend on. A stage that has not loaded torch has used no other device."""
    torch = sys.modules.get("torch")
    device = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else "CPU"
    hardware = {"device": device, "processor": processor(), "machine": platform.machine(), "cores": os.cpu_count()}
    hardware |= {"threads": torch.get_num_threads()} if torch else {}
    versions = {name: version(name) for name in PACKAGES}
    return {"hardware": hardware, "versions": {"python": platform.python_version(), **versions}}


def peak_memory() -> float:
    """GiB of main memory that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
