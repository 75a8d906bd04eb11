"""What one GPU must show (`make test-gpu`): both of vLLM's model runners, the sweep, training and its estimate.

Written for any CUDA card of 8 GB or more; skipped with a reason elsewhere. Tokens are compared in float32, where two
ways to the same logits differ least, and still not exactly: another batch size sums in another order.
"""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import make_profile
from tests.sft.test_footprint import RECIPES, check_estimate
from tests.sft.test_sft import losses, rows
from z1lib.engines.base import load_engine
from z1lib.inference.decode import generate, window_sweep
from z1lib.models import make_random_model
from z1lib.sft import launch, train
from z1lib.window import HINT, ShiftedWindow

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
WINDOWS, ANSWER = [0, 12, 24, 48], 8
PROMPTS = [f"<|im_start|>user\nWhat is {i} + {i}?<|im_end|>\n<|im_start|>assistant\n" for i in range(64)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Random weights, which a machine has that no hub and no package index reaches."""
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = make_random_model(0, layers=4, hidden=256)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


SWEEP = """
import json, sys
from tests.test_gpu import ANSWER, PROMPTS, WINDOWS
from z1lib.engines.base import load_engine
from z1lib.inference.decode import generate, window_sweep
from z1lib.window import ShiftedWindow

engine = load_engine("vllm", sys.argv[1], dtype="float32", max_model_len=1024, gpu_memory_utilization=0.5)
single = {w: generate(engine, PROMPTS, ShiftedWindow(w, max_answer_tokens=ANSWER)) for w in WINDOWS}
swept = window_sweep(engine, PROMPTS, WINDOWS, max_answer_tokens=ANSWER)
json.dump([[[row.token_ids for [row] in rows[w]] for w in WINDOWS] for rows in (single, swept)], open(sys.argv[2], "w"))
"""


@pytest.mark.parametrize("runner", ["0", "1"])
def test_vllm_forces_the_hint_at_the_window_under_both_model_runners(model, tmp_path, runner):
    pytest.importorskip("vllm", reason="vLLM is not installed: `make setup EXTRAS=vllm`")
    root = os.path.dirname(os.path.dirname(__file__))
    environment = {**os.environ, "VLLM_USE_V2_MODEL_RUNNER": runner, "PYTHONPATH": root}
    command = [sys.executable, "-c", SWEEP, model, str(tmp_path / "ids.json")]
    subprocess.run(command, env=environment, check=True)
    single, swept = json.loads((tmp_path / "ids.json").read_text())
    engine = load_engine("transformers", model, dtype="float32", batch_size=64)
    hint = engine.tokenizer(HINT, add_special_tokens=False)["input_ids"]
    ends = engine.end_ids
    for window, rows_single, rows_swept in zip(WINDOWS, single, swept):
        for ids in rows_single + rows_swept:
            if len(ids) <= window:
                assert ids[-1] in ends
            else:
                assert ids[window : window + len(hint)] == hint
                assert len(ids) <= window + len(hint) + ANSWER
        same = sum(a == b for a, b in zip(rows_single, rows_swept))
        assert same >= 0.9 * len(PROMPTS)
        plain = [row.token_ids for [row] in generate(engine, PROMPTS, ShiftedWindow(window, max_answer_tokens=ANSWER))]
        assert sum(a == b for a, b in zip(rows_single, plain)) >= 0.9 * len(PROMPTS)


def test_the_sweep_of_the_transformers_engine_is_generate_at_every_window(model):
    engine = load_engine("transformers", model, dtype="float32", batch_size=64)
    swept = window_sweep(engine, PROMPTS, WINDOWS, max_answer_tokens=ANSWER)
    for window in WINDOWS:
        single = generate(engine, PROMPTS, ShiftedWindow(window, max_answer_tokens=ANSWER))
        same = sum(a[0].token_ids == b[0].token_ids for a, b in zip(swept[window], single))
        assert same >= 0.9 * len(PROMPTS)


PAPER = {"mixed_precision": "bf16", "gradient_checkpointing": True}
LORA = {"mixed_precision": "bf16", "lora": {"r": 8, "target_modules": "all-linear"}}


@pytest.mark.parametrize(("values", "tolerance"), [({"mixed_precision": "no"}, 0.02), (PAPER, 0.05), (LORA, 0.05)])
def test_a_run_trains_on_the_gpu_with_the_losses_of_the_cpu(tiny_model, tmp_path, values, tolerance):
    """In float32; in the paper's precision without padding, through TRL's own loss head; with adapters."""
    profile = make_profile("smoke", **values)
    on_gpu = losses(train.fine_tune(rows(32), tiny_model, tmp_path / "gpu", profile))
    job = launch.write_job(rows(32), tiny_model, tmp_path / "cpu", profile)
    command = [sys.executable, "-m", "z1lib.sft.launch", str(job)]
    subprocess.run(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=True)
    on_cpu = losses(train.read_training(tmp_path / "cpu")["log"])
    assert on_gpu == pytest.approx(on_cpu, rel=tolerance)
    assert on_gpu[-1] < on_gpu[0]


@pytest.mark.parametrize("values", RECIPES)
def test_the_memory_of_the_card_is_estimated_within_a_quarter(tmp_path, values):
    check_estimate(tmp_path, values, layers=8, hidden=1024)
