"""Start `vllm serve` and stop it again: how a model is decoded on all the GPUs of a machine.

vLLM's own data parallelism puts a copy of the model on each GPU and one endpoint before them; nothing here schedules.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path


class ServerFailed(RuntimeError):
    """`vllm serve` ended before it was ready; the message names its log and shows the last lines."""


def serve(model: str, **options: str | int | float | bool) -> tuple[str, Callable[[], None]]:
    """Start a server on a free port of the loopback: (its base URL, a function that stops it).

    `options` are those of `vllm serve` with underscores (`data_parallel_size=8`); True is a flag without a value. It
    takes no default of its own from the model's generation config, unless `generation_config` says so.
    Returns when it answers, however long the weights take to load; raises ServerFailed if it ends before.
    """
    port = free_port()
    log = Path(tempfile.mkstemp(prefix="vllm-serve-", suffix=".log")[1])
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model]
    command += ["--host", "127.0.0.1", "--port", str(port), *_flags({"generation_config": "vllm", **options})]
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def stop() -> None:
        atexit.unregister(stop)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    atexit.register(stop)  # a notebook that is closed must not leave its GPUs taken
    while not answers(f"http://127.0.0.1:{port}/health"):
        if process.poll() is not None:
            atexit.unregister(stop)
            lines = log.read_text(errors="replace").splitlines()[-15:]
            raise ServerFailed(
                f"{' '.join(command[3:])} ended with {process.returncode}, log {log}:\n" + "\n".join(lines)
            )
        time.sleep(1)
    return f"http://127.0.0.1:{port}/v1", stop


def _flags(options: dict) -> list[str]:
    flags = []
    for name, value in options.items():
        flags += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return flags


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
