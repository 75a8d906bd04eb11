"""Shared test pieces: a toy tokenizer of characters, an engine that follows a script, a tiny random model."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from z1lib.engines.base import Decoded, Request, check_prompts
from z1lib.models import save_base_model
from z1lib.profile import MOVED, Profile, load_profile
from z1lib.window import ask

END = 0


class ToyTokenizer:
    """One id a character (its code point); id 0 is the end token."""

    eos_token_id = END

    def __call__(self, text: str, add_special_tokens: bool = False, split_special_tokens: bool = False) -> dict:
        return {"input_ids": [ord(character) for character in text]}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(chr(i) for i in ids)

    def apply_chat_template(self, messages, tokenize=False, add_generation_prompt=False, **_) -> str:
        return "".join(f"{row['role'][0]}:{row['content']}\n" for row in messages) + "a:" * add_generation_prompt

    all_special_tokens: list[str] = []

    def get_added_vocab(self) -> dict:
        return {}


class ScriptedEngine:
    """Decodes by `script(prompt_ids, ids) -> next id`, one token at a time, each branch from scratch.

    It shares nothing between branches, so it is the plain reading of what a sweep must give.
    """

    def __init__(self, script: Callable[[list[int], list[int]], int], context_length: int = 10_000):
        self.script, self.context_length = script, context_length
        self.model_name, self.fingerprint, self.tokenizer = "scripted", "scripted", ToyTokenizer()
        self.arithmetic, self.vocabulary = "none", 0x110000
        self.end_ids = frozenset({END})

    def decode(self, requests: list[Request]) -> Iterator[tuple[int, list[Decoded]]]:
        check_prompts(requests, self)
        for index, request in enumerate(requests):
            yield index, [self._follow(request, policy) for policy in (request.policy, *request.branches)]

    def _follow(self, request: Request, policy) -> Decoded:
        ids, put = request.begin()
        while not policy.finished(ids):
            step = ask(policy, ids, put)
            token = step.force if step.force is not None else self.script(request.prompt_ids, ids)
            if token in step.of:
                put.append(len(ids))
                ids += step.instead
            else:
                ids.append(token)
                if step.force is None and token in self.end_ids:
                    return Decoded(ids, True, tuple(put))
        return Decoded(ids, False, tuple(put))


def sections(**keys) -> dict:
    """Keys under the names of the flat profiles, in their sections."""
    found: dict = {}
    for key, value in keys.items():
        section, _, own = {**MOVED, "models": "inference.models", "seed": "seed"}[key].partition(".")
        found |= {section: {**found.get(section, {}), own: value} if own else value}
    return found


def make_profile(name: str, **keys) -> Profile:
    """A profile with some keys overridden, each given without its section. Other runs are all decoded in one way."""
    if "runs" in keys:
        one_way = dict.fromkeys(keys["runs"], "shifted_window")
        keys = {"models": one_way, "delimiters": {}, "max_problems": {}, **keys}
    return load_profile(name, **sections(**keys))


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def write(text: str) -> Callable[[list[int], list[int]], int]:
    """A script that writes `text` and ends, whatever the prompt; forced tokens do not move it on."""
    ids = [*encode(text), END]
    return lambda prompt, done: ids[min(len(done), len(ids) - 1)]


class HubCache:
    """A local cache of the Hub with files of our own in it, where the Hub itself cannot be reached."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {"HF_HUB_CACHE": str(folder), "HF_HUB_OFFLINE": "1"}

    def snapshot(self, repository: str, revision: str, kind: str = "datasets") -> Path:
        """The folder of a repository at a commit, or at a named revision, made where it is missing."""
        home = self.folder / f"{kind}--{repository.replace('/', '--')}"
        commit = revision
        if not re.fullmatch("[0-9a-f]{40}", revision):
            commit = "1" * 40
            (home / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
            (home / "refs" / revision).write_text(commit)
        (home / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        return home / "snapshots" / commit

    def store(self, repository: str, revision: str, name: str, rows: list[dict]) -> None:
        """Write rows where the data set's file would be found."""
        path = self.snapshot(repository, revision) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pd.DataFrame(rows).to_parquet(path)
        elif path.suffix == ".csv":
            pd.DataFrame(rows).to_csv(path, index=False)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> HubCache:
    cache = HubCache(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache.environment["HF_HUB_CACHE"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """A saved Qwen2 of random weights with a tokenizer of bytes."""
    return str(save_base_model(tmp_path_factory.mktemp("model") / "tiny", "random", None, None, seed=0))


SBATCH = r"""#!/bin/bash
# Runs a job's array on this machine, one task after the other, and is done when they are: what `sbatch --wait` does.
job=${@: -1}
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' $job)
for task in $(seq 0 $last); do SLURM_ARRAY_TASK_ID=$task bash $job >&2 || exit 1; done
echo Submitted batch job 1
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """datatrove's own Slurm executor, on a cluster of this machine alone."""
    from datatrove.executor import SlurmPipelineExecutor

    commands = {"sbatch": SBATCH, "scontrol": "#!/bin/bash\necho localhost\n"}
    (tmp_path / "bin").mkdir()
    for name, script in commands.items():
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_NODELIST", "localhost")
    options = {"time": "1:00:00", "partition": "cpu", "sbatch_args": {"wait": ""}}  # as the README says
    return partial(SlurmPipelineExecutor, **options, with_srun=False, tasks_per_job=8)
