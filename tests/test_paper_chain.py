"""The paper's profile through the four notebooks, shrunk: its benchmarks, its models, its data set, from a local cache
of the Hub that holds files of the published shapes made by us, and a tiny model in the place of each 7B one.
"""

import json
import os
import shutil

import pandas as pd
import pytest
import yaml

from tests.conftest import HubCache, sections
from tests.problems.test_sources import code_row, gpqa_row, math_row
from tests.test_notebooks import ROOT, clone_project, make
from z1lib.curation.reader import SOURCES
from z1lib.files import read_jsonl
from z1lib.problems import bigcodebench, gpqa, livecodebench, math500
from z1lib.records import Completion, Grade

COMMIT = "0" * 40
KEYS = {
    "gpus": 0,
    "gpu_memory_gib": 0,
    "base_model": "random",
    "base_model_revision": None,
    "released_models": dict.fromkeys(("z1", "r1", "s1"), f"nobody/tiny@{COMMIT}"),
    "test_problems": {"math500": 3, "gpqa_diamond": 3, "livecodebench": 2, "bigcodebench_hard": 1, "humaneval": 2},
    "train_problems": 20,
    "min_response_tokens": 1,
    "curation_workers": 1,
    "engine": "transformers",
    "engine_options": {"batch_size": 8},
    "windows": [4, 8, 12],
    "probe_every": 4,
    "other_hint_windows": [8],
    "max_answer_tokens": 8,
    "max_tokens": 24,
    "bootstrap_draws": 100,
}


def fill(cache: HubCache, tiny_model: str) -> None:
    """The files of every data set and model the profile names."""
    shutil.copytree(tiny_model, cache.snapshot("nobody/tiny", COMMIT, kind="models"), dirs_exist_ok=True)
    cache.store(math500.REPOSITORY, math500.REVISION, math500.FILE, [math_row(i) for i in range(5)])
    cache.store(gpqa.REPOSITORY, gpqa.REVISION, gpqa.FILE, [gpqa_row(i) for i in range(5)])
    for file in livecodebench.FILES[:5]:
        rows = [code_row(i, functional=bool(i % 2)) for i in range(2)]
        cache.store(livecodebench.REPOSITORY, livecodebench.REVISION, file, rows)
    test = "import unittest\nclass TestCases(unittest.TestCase):\n    def test(self): self.assertEqual(task_func(2), 4)"
    task = {
        "task_id": "BigCodeBench/1",
        "instruct_prompt": "Double it.",
        "code_prompt": "",
        "test": test,
        "libs": "['math']",
    }
    cache.store(bigcodebench.REPOSITORY, bigcodebench.REVISION, bigcodebench.FILE, [task])
    words = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "theta"]
    rows = []
    for i in range(20):
        question = f"Sort {' '.join(words[i % 8 :] + words[: i % 8])} by rule {i * 7919}."
        response = f"First, {i}. " + " ".join(f"{word}{i * k}" for k, word in enumerate(words))
        rows.append({"id": f"q{i}", "question": question, "response": response, "token_num_qwen": len(response)})
    source = SOURCES["z1_code_reasoning_107k"]
    cache.store(source.repository, source.revision, source.file, rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model):
    """The folder of the finished run."""
    cache = HubCache(tmp_path_factory.mktemp("hub"))
    fill(cache, tiny_model)
    folder = clone_project(tmp_path_factory.mktemp("paper") / "clone")
    shutil.copytree(ROOT / "figures/mini_wide", folder / "figures/mini_wide")  # 05 shows it where there is no pool
    (folder / "profiles/fixtures.yaml").write_text(yaml.safe_dump({"like": "paper", **sections(**KEYS)}))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cache.environment.items():
            patch.setenv(name, value)
        done = make(folder, "-o", "own", "reproduce", "PROFILE=fixtures")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return folder / "runs/fixtures"


def test_every_benchmark_goes_from_its_file_to_a_grade(run):
    completions = read_jsonl(run / "completions.jsonl", Completion)
    grades = read_jsonl(run / "grades.jsonl", Grade)
    summary = pd.read_csv(run / "summary.csv")
    assert len(completions) == len(grades)
    assert set(summary.problem_set) == set(KEYS["test_problems"])
    assert set(summary.model) == {"base", "z1", "r1", "s1"}
    whole = summary[(summary.level == "all") & (summary.policy == "unbounded") & (summary.model == "z1")]
    assert whole.set_index("problem_set").n.to_dict() == KEYS["test_problems"]
    policies = summary.groupby("model").policy.agg(set)
    assert "budget_forcing" in policies["r1"] & policies["s1"]
    assert "shifted_window" in policies["base"] & policies["z1"]
    assert "first_agreeing" in policies["z1"]


def test_programs_ran_in_the_sandbox_and_the_grade_says_in_which(run):
    code = {"livecodebench", "bigcodebench_hard", "humaneval"}
    problems = [json.loads(line) for line in (run / "problems.jsonl").read_text().splitlines()]
    kinds = {problem["id"]: problem["source"] in code for problem in problems}
    for grade in read_jsonl(run / "grades.jsonl", Grade):
        assert bool(grade.sandbox) == kinds[grade.problem_id]


def test_the_system_prompts_are_the_papers(run):
    """The chat template's own for code, the paper's sentence for mathematics and choices."""
    text = (run / "03_windowed_inference.ipynb").read_text()
    assert "put your final answer within" in text
    assert "put your choice letter without any other text" in text


def test_released_weights_are_linked_and_nothing_is_trained(run):
    assert {path.name for path in (run / "models").iterdir() if path.is_symlink()} == {"z1", "r1", "s1"}
    assert os.readlink(run / "models/z1").endswith(COMMIT)
    assert "Nothing is trained in this profile" in (run / "02_sft.ipynb").read_text()


def test_what_it_costs_stands_in_the_notebook_before_it_starts(run):
    assert "GPU hours at most" in (run / "03_windowed_inference.ipynb").read_text()


def test_the_papers_points_are_drawn_beside_and_the_report_is_whole(run):
    page = (run / "report.html").read_text()
    assert "smoke run, numbers mean nothing" in page
    assert page.count("data:image/png") >= 10
