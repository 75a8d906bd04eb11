"""What a run takes is known before it starts, and what does not fit is refused."""

import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Qwen2Config

from tests.conftest import make_profile
from tests.sft.test_sft import rows
from z1lib.hardware import MissingHardware, check_hardware, smaller_profile
from z1lib.models import make_random_model
from z1lib.profile import load_profile
from z1lib.records import Trajectory
from z1lib.sft import data, footprint, train

GIB = 2**30
LORA = {"r": 64, "lora_alpha": 64, "target_modules": "all-linear"}


def examples(count: int, prompt: int, response: int) -> list[dict]:
    return [{"input_ids": [0] * (prompt + response), "labels": [data.IGNORE] * prompt + [0] * response}] * count


@pytest.fixture(scope="module")
def qwen_7b(tmp_path_factory) -> Path:
    """The configuration of Qwen2.5-Coder-7B-Instruct, without weights: 7,615,616,512 parameters."""
    config = Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32768,
        tie_word_embeddings=False,
    )
    folder = tmp_path_factory.mktemp("7b")
    config.save_pretrained(folder)
    return folder


def test_full_fine_tuning_of_7b_is_sixteen_bytes_a_parameter_shared_by_the_devices(qwen_7b):
    paper = load_profile("paper")
    sharded = footprint.estimate(qwen_7b, examples(256, 200, 2000), paper)
    alone = footprint.estimate(qwen_7b, examples(256, 200, 2000), make_profile("paper", gpus=1, fsdp={}))
    parameters = 7_615_616_512
    assert alone.weights + alone.gradients + alone.optimizer == 16 * parameters
    assert sharded.gradients + sharded.optimizer == 12 * parameters // 8
    gathered = sharded.weights - 4 * parameters // 8
    assert 1.0 < gathered / GIB < 4.0  # embeddings, head and two layers in bf16
    assert sharded.steps == 2 * 256 // 256
    assert sharded.disk == 3 * 16 * parameters  # two checkpoints and one being written


def test_checkpointing_keeps_a_fraction_of_the_activations(qwen_7b):
    plain = make_profile("single_gpu", gradient_checkpointing=False)
    kept = footprint.estimate(qwen_7b, examples(8, 200, 2000), plain).activations
    checkpointed = footprint.estimate(
        qwen_7b, examples(8, 200, 2000), load_profile(plain, sft={"gradient_checkpointing": True})
    )
    assert checkpointed.activations < 0.3 * kept


@pytest.mark.parametrize(("name", "card"), [("paper", 80), ("single_gpu", 80)])
def test_the_profiles_for_7b_fit_their_cards_with_the_longest_batch(qwen_7b, name, card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # for the loss head and the context of a GPU
    monkeypatch.setattr(train, "has_bf16_units", lambda: True)
    monkeypatch.setattr(footprint.shutil, "disk_usage", lambda folder: Namespace(free=10**12))
    whole = footprint.estimate(qwen_7b, examples(2, 2048, 8192), load_profile(name))
    footprint.check_fits(whole, load_profile(name), Path("."), int(0.97 * card * GIB))
    full = make_profile(name, gpus=1, fsdp={}, lora={})
    with pytest.raises(footprint.DoesNotFit, match=r"takes \d\d\d\.\d GiB a device \(weights 28\.4"):
        footprint.check_fits(footprint.estimate(qwen_7b, examples(2, 2048, 8192), full), full, Path("."), card * GIB)


def test_what_does_not_fit_is_refused_with_the_next_smaller_profile(tiny_model, tmp_path, monkeypatch):
    profile = load_profile("mini")
    needs = footprint.estimate(tiny_model, examples(8, 10, 10), profile)
    footprint.check_fits(needs, profile, tmp_path)
    with pytest.raises(footprint.DoesNotFit, match="GPUs is smoke: `make reproduce PROFILE=smoke`"):
        footprint.check_fits(needs, profile, tmp_path, needs.total - 1)
    with pytest.raises(footprint.DoesNotFit, match="no smaller profile runs on the GPUs of this machine"):
        footprint.check_fits(needs, load_profile("smoke"), tmp_path, needs.total - 1)
    monkeypatch.setattr(footprint.shutil, "disk_usage", lambda folder: Namespace(free=needs.disk - 1))
    with pytest.raises(footprint.DoesNotFit, match="make room, or lower `keep_checkpoints`"):
        footprint.check_fits(needs, profile, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_a_profile_for_gpus_names_the_one_for_this_machine():
    assert smaller_profile(load_profile("paper")) == "mini"
    assert smaller_profile(load_profile("smoke")) is None
    with pytest.raises(MissingHardware, match="8 GPU.* this machine's GPUs is mini"):
        check_hardware(load_profile("paper"))
    with pytest.raises(MissingHardware, match="wants 4 GPU"):
        check_hardware(make_profile("paper", machines=2))


@pytest.mark.parametrize(("batch", "accumulation", "epochs"), [(2, 1, 1), (4, 3, 2), (3, 2, 1)])
def test_steps_are_counted_as_the_trainer_counts_them(tmp_path, tiny_model, batch, accumulation, epochs):
    profile = make_profile("smoke", batch_size=batch, gradient_accumulation_steps=accumulation, epochs=epochs)
    log = train.fine_tune(rows(13), tiny_model, tmp_path / "z1", profile)
    assert log[-1]["step"] == footprint.count_steps(13, profile)


def test_tokens_and_hours_are_those_of_all_epochs(tiny_model):
    profile = make_profile("smoke", epochs=3, training_tokens_per_second=100)
    needs = footprint.estimate(tiny_model, examples(10, 20, 30), profile)
    assert needs.tokens == 3 * 10 * 50
    assert needs.hours == pytest.approx(15 / 3600)


def card_bytes() -> int:
    """What all processes hold of the GPU, 0 where there is none."""
    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def peak_bytes() -> int:
    """The most this process has held; on a GPU of that, with what CUDA itself takes and what other processes hold."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() + card_bytes() - torch.cuda.memory_reserved()
    # Not ru_maxrss, in which Linux counts the pytest that forked this process too.
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def measure(folder: str, values: str) -> None:
    """Run in a process of its own: the estimate, then training on all kinds of lengths, then the peak.

    Half of the examples are the longest, so that two of those meet in a batch.
    """
    profile = make_profile("smoke", **json.loads(values))
    lengths = [1020 if i % 2 else 100 + 40 * i for i in range(24)]
    texts = [Trajectory(f"t{i}", "q" * 100, "a" * length, 9, 1, "toy", "z1") for i, length in enumerate(lengths)]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    needs = footprint.estimate(folder, data.tokenize_rows(texts, tokenizer, profile), profile)
    train.make_trainer(texts, folder, Path(folder) / "run", profile).train()
    print(json.dumps([needs.total, peak_bytes()]))


RECIPES = [{}, {"mixed_precision": "bf16"}, {"gradient_checkpointing": True}, {"lora": LORA}]


def check_estimate(tmp_path: Path, values: dict, layers: int, hidden: int) -> None:
    model, tokenizer = make_random_model(0, layers=layers, hidden=hidden)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    arguments = [str(tmp_path), json.dumps({"batch_size": 2, **values})]
    script = "import sys; from tests.sft.test_footprint import measure; measure(*sys.argv[1:])"
    command = [sys.executable, "-c", script, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    here, others = Path(__file__).parent.parent.parent, card_bytes()
    run = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=True)
    estimated, peak = json.loads(run.stdout.splitlines()[-1])
    print(f"{values}: estimated {estimated / GIB:.2f} GiB, measured {(peak - others) / GIB:.2f}")
    assert estimated == pytest.approx(peak - others, rel=0.25)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="measures a CPU; test_gpu.py measures the GPU")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read where Linux writes it")
@pytest.mark.parametrize("values", RECIPES)
def test_the_estimate_is_within_a_quarter_of_the_measured_peak(tmp_path, values):
    check_estimate(tmp_path, values, layers=6, hidden=512)
