"""math-verify in a process of its own, so that it works from any thread and an expression that never ends can be ended.

math-verify guards itself with SIGALRM, which only the main thread may use, and `9^{9^{9^{9}}}` outlasts it. Here one
process answers line by line (JSON in, JSON out); the caller waits a few seconds and starts another if none comes.
"""

import json
import selectors
import subprocess
import sys
import threading

LIMIT_S = 2.5
SERVE = """
import json, sys
from math_verify import parse, verify
def apart(one, other):
    # Both are numbers and further apart than a part in a million: math-verify rounds to six places.
    if one == other or not (one.is_number and other.is_number):
        return False
    one, other = one.evalf(20), other.evalf(20)
    distance, size = abs(one - other), max(abs(one), abs(other))
    return bool(distance.is_finite and distance > size / 10**6)
def agree(gold, found):
    pairs = [(a, b) for a in gold for b in found if hasattr(a, "is_number") and hasattr(b, "is_number")]
    return not pairs or not all(apart(*pair) for pair in pairs)
for line in sys.stdin:
    reference, answer = json.loads(line)
    try:
        gold, found = (parse(text, parsing_timeout=None, raise_on_error=False) for text in (reference, answer))
        equal = bool(verify(gold, found, timeout_seconds=None)) and ("%" in line or agree(gold, found))
    except Exception:
        equal = False
    print(json.dumps(equal), flush=True)
"""


class MathWorker:
    """Compares pairs of expressions, one at a time; safe to use from several threads."""

    def __init__(self):
        self.process: subprocess.Popen | None = None
        self.lock = threading.Lock()

    def is_equal(self, reference: str, answer: str) -> bool:
        """Whether math-verify finds two texts with LaTeX equal; not if it takes longer than `LIMIT_S` seconds."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self._start()
            try:
                self.process.stdin.write(json.dumps([reference, answer]) + "\n")
                self.process.stdin.flush()
                line = self._read(LIMIT_S)
            except BrokenPipeError:
                line = ""
            if not line:
                self.process.kill()
                self.process.wait()
            return line.strip() == "true"

    def _start(self) -> None:
        command = [sys.executable, "-c", SERVE]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.process.stdin.write(json.dumps(["$1$", "$1$"]) + "\n")  # the imports take longer than any comparison
        self.process.stdin.flush()
        self._read(60)

    def _read(self, seconds: float) -> str:
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            return self.process.stdout.readline() if selector.select(seconds) else ""
