"""What a notebook needs on Colab before its first cell: the study beside Colab's packages, a profile, room for runs.

It is imported before anything is installed: at the top it needs the standard library alone.
"""

import importlib
import os
import signal
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).parents[2]
# Colab's own stay as they are: a kernel that runs cannot change them, and the first two are made for its cards.
OWN = ("torch", "numpy", "pandas", "ipython", "ipykernel", "notebook", "jupyter-server")
PROFILE = "Z1_PROFILE"  # in the environment: the profile that the parameters' cell takes


def set_up(keep_on_drive: bool = False) -> None:
    """Install the study once, go to its notebooks, choose the profile for the card; with Drive, keep runs there.

    Ends the kernel, which Colab starts again, where a package that is in use had to be replaced.
    """
    if _version("z1lib") is None:
        install(FOLDER)
    os.chdir(FOLDER / "notebooks")
    if keep_on_drive:
        importlib.import_module("google.colab.drive").mount("/content/drive")  # a package that is only there
        keep_runs(Path("/content/drive/MyDrive/z1-runs"))
    from z1lib.hardware import smaller_profile
    from z1lib.profile import load_profile

    os.environ.setdefault(PROFILE, smaller_profile(load_profile("paper")) or "mini")
    print(f"profile {os.environ[PROFILE]}, the largest for what this runtime has; another: set `profile` below")


def install(folder: Path) -> None:
    """The package and what it lacks, none of Colab's own replaced."""
    loaded = {name: _version(name) for name in _distributions()}
    own = [f"{name}=={version}" for name in OWN if (version := _version(name))]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(own))
        constraints.flush()
        print("installing the study beside what is here: some minutes")
        command = [sys.executable, "-m", "pip", "install", "-q", "-c", constraints.name, "-e", str(folder)]
        subprocess.run(command, check=True)
    importlib.invalidate_caches()
    if replaced := sorted(name for name, version in loaded.items() if version != _version(name)):
        print(f"{', '.join(replaced)} was in use and is new now. The kernel starts again: run the cells from the top")
        restart()


def restart() -> None:
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def keep_runs(folder: Path) -> None:
    """Have `runs/` stand in another place, which outlives the runtime."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "runs").exists():
        (FOLDER / "runs").symlink_to(folder)


def _distributions() -> set[str]:
    """The packages of which this kernel has imported something."""
    return {
        name for module, names in metadata.packages_distributions().items() if module in sys.modules for name in names
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
