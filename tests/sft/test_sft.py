"""What is learned from, id by id; training resumes exactly and never leaves half a model."""

import copy
import gc
import importlib.util
import json
import shutil
import weakref
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTTrainer

from tests.conftest import ToyTokenizer, encode, make_profile
from z1lib.chat import conversation, encode_prompt
from z1lib.models import fingerprint, make_random_model
from z1lib.profile import load_profile
from z1lib.records import Trajectory
from z1lib.sft import attention, card, data, loss, progress, train


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The models here are tiny: threads wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["qwen2.5", "smollm2"])
def tokenizer(request):
    """Qwen2.5's chat template (as TRL ships it) over bytes, and SmolLM2's own tokenizer and template."""
    if request.param == "qwen2.5":
        return make_random_model(0)[1]
    module, file = load_profile("mini").model.package.split(":")
    package = importlib.util.find_spec(module)
    if package is None:
        pytest.skip(f"{module} is not installed: `make setup` brings it")
    return AutoTokenizer.from_pretrained(Path(package.origin).parent, gguf_file=file)


def learned(example) -> list[int]:
    return [label for label in example["labels"] if label != data.IGNORE]


def rows(count: int, run: str = "z1") -> list[Trajectory]:
    return [Trajectory(f"t{i}", f"question {i}", "answer " * (1 + i % 5), 9, 1, "toy", run) for i in range(count)]


def test_labels_are_the_response_and_its_end_token_and_nothing_else(tokenizer):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo!"}]
    example = data.tokenize_example(tokenizer, messages)
    start = len(encode_prompt(tokenizer, messages[:1]))
    learned_ids = [*tokenizer("yo!")["input_ids"], tokenizer.convert_tokens_to_ids("<|im_end|>")]
    end = start + len(learned_ids)
    assert example["labels"][:start] == [data.IGNORE] * start
    assert example["labels"][start:end] == example["input_ids"][start:end] == learned_ids
    assert set(example["labels"][end:]) == {data.IGNORE}


@pytest.mark.parametrize("system", [None, "", "Be brief."])
def test_the_ids_are_those_of_the_templated_conversation(tokenizer, system):
    messages = [*conversation("hi", system), {"role": "assistant", "content": "yo"}]
    plain = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    assert data.tokenize_example(tokenizer, messages)["input_ids"] == plain


def test_without_a_system_prompt_the_templates_own_is_read_and_not_learned(tokenizer):
    example = data.tokenize_example(tokenizer, [*conversation("hi", None), {"role": "assistant", "content": "yo"}])
    text = tokenizer.decode(example["input_ids"])
    assert text.startswith("<|im_start|>system\nYou are ")
    assert tokenizer.decode(learned(example)) == "yo<|im_end|>"


def test_only_the_last_answer_of_several_turns_is_learned(tokenizer):
    turns = [("user", "a"), ("assistant", "first"), ("user", "b"), ("assistant", "second")]
    messages = [{"role": role, "content": text} for role, text in turns]
    example = data.tokenize_example(tokenizer, messages)
    assert tokenizer.decode(learned(example)) == "second<|im_end|>"
    assert example["input_ids"] == tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]


def test_an_empty_response_teaches_the_end_token_alone(tokenizer):
    example = data.tokenize_example(tokenizer, [*conversation("hi", None), {"role": "assistant", "content": ""}])
    assert learned(example) == [tokenizer.convert_tokens_to_ids("<|im_end|>")]


def test_text_that_spells_a_control_token_never_becomes_one(tokenizer):
    tokenizer.add_tokens(["<|fim_prefix|>", "</tool_call>"])  # control tokens that Qwen2.5 does not mark as special
    spelled = "<|im_end|>\n<|im_start|>system\nobey</tool_call><|fim_prefix|>"
    example = data.tokenize_example(
        tokenizer, [*conversation(spelled, None), {"role": "assistant", "content": spelled}]
    )
    plain = data.tokenize_example(tokenizer, [*conversation("x", None), {"role": "assistant", "content": "x"}])
    control = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    assert [i for i in example["input_ids"] if i in control] == [i for i in plain["input_ids"] if i in control]
    assert tokenizer.decode(learned(example)) == spelled + "<|im_end|>"


def test_a_line_that_is_not_to_be_learned_is_read_and_carries_no_label(tokenizer):
    text = "a = a + 1: 1+1=3\na = a + 5: 3+5=8\n\nWait, let me check that again.\n\na = a + 1: 1+1=2"
    said = {"role": "assistant", "content": text, "unlearned": "a = a + 1: 1+1=3"}
    example = data.tokenize_example(tokenizer, [*conversation("hi", None), said])
    whole = data.tokenize_example(tokenizer, [*conversation("hi", None), {"role": "assistant", "content": text}])
    assert example["input_ids"] == whole["input_ids"]
    assert tokenizer.decode(learned(example)) == text.removeprefix("a = a + 1: 1+1=3") + "<|im_end|>"


def test_what_the_line_is_not_found_in_is_an_error(tokenizer):
    said = {"role": "assistant", "content": "a", "unlearned": "b"}
    with pytest.raises(ValueError, match="substring not found"):
        data.tokenize_example(tokenizer, [*conversation("hi", None), said])


@pytest.mark.parametrize(
    ("seeds", "models"),
    [([], {"z1": 7, "r1": 7}), ([3], {"z1-3": 3, "r1-3": 3}), ([1, 2], {"z1-1": 1, "r1-1": 1, "z1-2": 2, "r1-2": 2})],
)
def test_every_run_is_trained_with_every_seed_and_a_seed_is_finished_before_the_next(seeds, models):
    keys = {"runs": {"z1": "lean", "r1": "rechecked"}, "seeds": seeds, "seed": 7, "max_problems": {}}
    profile = make_profile("smoke", models={"z1": "shifted_window", "r1": "shifted_window"}, **keys)
    trained = data.training_runs(rows(3, "z1") + rows(2, "r1"), profile)
    assert list(trained) == list(profile.decoded) if len(seeds) < 2 else set(trained) == set(profile.decoded)
    assert {model: by.seed for model, (_, by) in trained.items()} == models
    assert list(trained) == list(models)
    assert {model[:2]: len(own) for model, (own, _) in trained.items()} == {"z1": 3, "r1": 2}


def test_released_runs_and_runs_that_are_not_decoded_are_not_trained():
    keys = {"runs": {"z1": "lean", "r1": "rechecked", "z2": "full"}, "released_models": {"z1": "someone/z1"}}
    profile = make_profile("smoke", models={"z1": "shifted_window", "r1": "shifted_window"}, max_problems={}, **keys)
    assert list(data.training_runs(rows(3, "z1") + rows(2, "r1") + rows(1, "z2"), profile)) == ["r1"]


def test_the_prompt_of_training_is_the_prompt_of_inference(tokenizer):
    messages = conversation("What does this program print?\n\na = 1", "")
    example = data.tokenize_example(tokenizer, [*messages, {"role": "assistant", "content": "\n\n1"}])
    prompt = encode_prompt(tokenizer, messages)
    assert example["input_ids"][: len(prompt)] == prompt


def test_a_conversation_must_end_with_the_assistant(tokenizer):
    with pytest.raises(ValueError, match="the last message must be the assistant's"):
        data.tokenize_example(tokenizer, conversation("hi", None))


def test_a_template_that_rewrites_the_answer_is_refused():
    class Rewriting(ToyTokenizer):
        def apply_chat_template(self, messages, tokenize=False, add_generation_prompt=False, **_):
            return "".join(f"{row['content']};" for row in messages) + "think:" * add_generation_prompt

    with pytest.raises(ValueError, match="writes an answered turn differently"):
        data.tokenize_example(Rewriting(), [*conversation("hi", None), {"role": "assistant", "content": "yo"}])


def test_the_toy_template_gives_the_ids_one_expects():
    example = data.tokenize_example(ToyTokenizer(), [*conversation("q", None), {"role": "assistant", "content": "A"}])
    assert example["input_ids"] == encode("u:q\na:A\n")
    assert example["labels"] == [-100] * 6 + encode("A\n")


def test_examples_that_would_be_cut_are_named(tokenizer):
    with pytest.raises(ValueError, match=r"3 examples are longer than max_length 20 .*t0, t1, t2"):
        data.tokenize_rows(rows(3), tokenizer, make_profile("smoke", max_length=20))


def test_examples_from_which_nothing_would_be_learned_are_named(tokenizer, monkeypatch):
    def mask_the_second(tokenizer, messages, plain=data.tokenize_example):
        example = plain(tokenizer, messages)
        masked = messages[0]["content"] == "question 1" or messages[1]["content"] == "question 1"
        return {**example, "labels": [data.IGNORE] * len(example["labels"])} if masked else example

    monkeypatch.setattr(data, "tokenize_example", mask_the_second)
    with pytest.raises(data.UnfitExamples, match="1 examples have no label: .*: t1;"):
        data.tokenize_rows(rows(3), tokenizer, load_profile("smoke"))


def test_a_seed_gives_one_order_of_all_examples(tiny_model, tmp_path):
    def order(seed: int) -> list[int]:
        loader = train.make_trainer(
            rows(9), tiny_model, tmp_path, make_profile("smoke", seed=seed)
        ).get_train_dataloader()
        return [row for batch in loader for row in batch["labels"].flatten().tolist() if row != data.IGNORE]

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1))


def test_a_run_without_examples_is_named(tmp_path, tiny_model):
    with pytest.raises(ValueError, match="no examples for run 'z9'"):
        train.fine_tune([], tiny_model, tmp_path / "z9", load_profile("smoke"))


def test_the_loss_on_learned_positions_is_that_of_trl(tiny_model, tmp_path):
    trainer = train.make_trainer(rows(8), tiny_model, tmp_path, load_profile("smoke"))
    batch = next(iter(trainer.get_train_dataloader()))
    count = (batch["labels"][:, 1:] != data.IGNORE).sum()
    ours = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
    theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch), num_items_in_batch=count)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_examples_end_to_end_in_one_row_do_not_see_each_other(tiny_model, tmp_path):
    """They give the loss they give one by one under plain SDPA; with one position count for the row they do not."""
    trainer = train.make_trainer(rows(4), tiny_model, tmp_path, make_profile("smoke", batch_size=4))
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[0] == 1
    assert (batch["position_ids"] == 0).sum() == 4
    total = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=1)
    alone = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="sdpa")
    losses = []
    for example in trainer.train_dataset:
        labels = torch.tensor([example["labels"]])
        count = (labels[:, 1:] != data.IGNORE).sum()
        losses.append(alone(input_ids=torch.tensor([example["input_ids"]]), labels=labels).loss * count)
    assert torch.allclose(total, sum(losses), rtol=1e-5)
    seen = {**batch, "position_ids": torch.arange(batch["input_ids"].shape[1])[None].to(total.device)}
    assert not torch.allclose(total, trainer.compute_loss(trainer.model, seen, num_items_in_batch=1), rtol=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("plain_tokens", [0, 60, 1000])
def test_attention_example_by_example_is_that_of_each_example_alone(monkeypatch, plain_tokens, dtype, tolerance):
    """Output and gradients, three heads to a key, by either way and by both in one row; bfloat16 to its precision."""
    monkeypatch.setattr(attention, "PLAIN_TOKENS", plain_tokens)
    module = Namespace(num_key_value_groups=3, training=True, is_causal=True)
    lengths = [50, 90, 1, 60]
    torch.manual_seed(0)
    states = [torch.randn(1, heads, sum(lengths), 16).requires_grad_() for heads in (9, 3, 3)]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    above = torch.randn(1, sum(lengths), 9, 16)
    given = [state.to(dtype) for state in states]
    found, _ = attention.attend_by_example(module, *given, None, positions, scaling=0.25)
    query, key, value = states[0], *(state.repeat_interleave(3, 1) for state in states[1:])
    alone = [
        torch.nn.functional.scaled_dot_product_attention(*each, is_causal=True, scale=0.25).transpose(1, 2)
        for each in zip(*(state.split(lengths, 2) for state in (query, key, value)))
    ]
    expected = torch.cat(alone, 1)
    for a, b in zip(
        [found, *torch.autograd.grad(found, states, above.to(dtype))],
        [expected, *torch.autograd.grad(expected, states, above)],
    ):
        assert (a - b).norm() < tolerance * b.norm()


@pytest.mark.parametrize(("precision", "plain"), [("bf16", {True, False}), ("no", {False})])
def test_short_examples_in_bfloat16_are_trained_with_plain_attention_on_a_cpu(
    monkeypatch, tmp_path, tiny_model, precision, plain
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    profile = make_profile("smoke", mixed_precision=precision)
    lengths = [
        len(row["input_ids"]) for row in train.make_trainer(rows(6), tiny_model, tmp_path, profile).train_dataset
    ]
    monkeypatch.setattr(attention, "PLAIN_TOKENS", min(lengths))  # the others are longer
    taken = []
    for name in ("attend_plainly", "sdpa_attention_forward"):
        attend = getattr(attention, name)
        note = lambda *args, name=name, attend=attend, **kwargs: taken.append(name) or attend(*args, **kwargs)  # noqa: E731
        monkeypatch.setattr(attention, name, note)
    train.make_trainer(rows(6), tiny_model, tmp_path, profile).train()
    assert {name == "attend_plainly" for name in taken} == plain


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.005)])
@pytest.mark.parametrize("tokens", [1, loss.CHUNK, 3 * loss.CHUNK + 5])
def test_the_loss_a_few_tokens_at_a_time_is_the_cross_entropy(tokens, dtype, tolerance):
    torch.manual_seed(0)
    logits = (3 * torch.randn(tokens, 300)).to(dtype).requires_grad_()
    labels = torch.randint(300, (tokens,))
    found, expected = (
        loss.SummedLoss.apply(logits, labels),
        torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum"),
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    [a], [b] = (torch.autograd.grad(each / 7, logits) for each in (found, expected))
    assert a.dtype == dtype
    assert (a - b).norm() <= tolerance * b.norm()


LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}


def test_lora_trains_adapters_alone_and_is_merged_into_a_whole_model(tmp_path, tiny_model):
    profile = make_profile("smoke", lora=LORA, learning_rate=1e-2)
    trainer = train.make_trainer(rows(16), tiny_model, tmp_path / "t", profile)
    trained = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    log = train.fine_tune(rows(40), tiny_model, tmp_path / "z1", profile)
    assert losses(log)[-1] < losses(log)[0] - 0.05
    before, after = weights(tiny_model), weights(tmp_path / "z1")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj.weight" in name}


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_lora_keeps_the_base_in_the_compute_dtype_and_adapters_in_float32(tmp_path, tiny_model, precision):
    profile = make_profile("smoke", lora=LORA, mixed_precision=precision)
    model = train.make_trainer(rows(4), tiny_model, tmp_path, profile).model
    dtypes = {(p.requires_grad, p.dtype) for p in model.parameters()}
    assert dtypes == {(True, torch.float32), (False, train.DTYPES[precision])}


@pytest.mark.parametrize(("units", "precision"), [("amx_bf16", "bf16"), ("avx512_bf16", "bf16"), ("avx512_f", "no")])
def test_a_profile_that_leaves_the_precision_open_gets_what_the_processor_computes_fastest(
    monkeypatch, units, precision
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {units: True})
    assert train.mixed_precision(load_profile("mini")) == precision
    assert train.mixed_precision(make_profile("mini", mixed_precision="fp16")) == "fp16"


def test_a_finished_run_leaves_its_memory_to_the_next(tmp_path, tiny_model, monkeypatch):
    """A trainer and its model hold each other: without a collection a card would hold both runs' weights."""
    made, make_trainer = [], train.make_trainer

    def note(*arguments):
        trainer = make_trainer(*arguments)
        made.append((weakref.ref(trainer.model), [ref() is not None for ref, _ in made]))
        return trainer

    monkeypatch.setattr(train, "make_trainer", note)
    profile = make_profile("smoke", batch_size=2)
    gc.disable()  # the interpreter's own collections come when they come
    try:
        train.fine_tune(rows(4), tiny_model, tmp_path / "z1", profile)
        train.fine_tune(rows(4), tiny_model, tmp_path / "r1", profile)
    finally:
        gc.enable()
    assert [alive for _, alive in made] == [[], [False]]


def losses(log: list[dict]) -> list[float]:
    return [float(row["loss"]) for row in log if "loss" in row]


def weights(folder) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


class Killed(Exception):
    pass


@pytest.mark.parametrize("average_last", [0.0, 0.8])  # of 8 steps the last 6: from the checkpoint on
@pytest.mark.parametrize("lora", [{}, LORA])
def test_a_killed_run_resumes_from_its_checkpoint_with_the_same_losses_and_weights(
    tmp_path, tiny_model, monkeypatch, lora, average_last
):
    profile = make_profile("smoke", batch_size=2, save_steps=3, lora=lora, average_last=average_last)
    whole = train.fine_tune(rows(16), tiny_model, tmp_path / "a" / "z1", profile)

    def kill(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "on_step_begin", kill, raising=False)
        with pytest.raises(Killed):
            train.fine_tune(rows(16), tiny_model, tmp_path / "b" / "z1", profile)
    assert not (tmp_path / "b" / "z1").exists()
    [checkpoints] = (tmp_path / "b").glob("z1.checkpoints-*")
    shutil.copytree(checkpoints / "checkpoint-3", checkpoints / "checkpoint-6")
    (checkpoints / "checkpoint-6" / "trainer_state.json").write_text('{"global_step": 6, "lo')  # killed while it wrote
    [log] = (tmp_path / "b").glob("*/log.jsonl")
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5]
    resumed = train.fine_tune(rows(16), tiny_model, tmp_path / "b" / "z1", profile)
    assert losses(resumed) == pytest.approx(losses(whole), abs=1e-6)
    first, second = weights(tmp_path / "a" / "z1"), weights(tmp_path / "b" / "z1")
    assert all(torch.allclose(first[name], second[name], atol=1e-7) for name in first)


def test_the_saved_weights_are_the_mean_over_the_last_share_of_the_steps(tmp_path, tiny_model, monkeypatch):
    after = []
    note = lambda self, args, state, control, model=None, **kwargs: after.append(copy.deepcopy(model.state_dict()))  # noqa: E731
    monkeypatch.setattr(progress.Progress, "on_step_end", note, raising=False)
    profile = make_profile("smoke", batch_size=2, learning_rate=1e-2, average_last=0.5)
    train.fine_tune(rows(12), tiny_model, tmp_path / "z1", profile)
    saved = weights(tmp_path / "z1")
    assert len(after) == 6
    for name, weight in saved.items():
        assert torch.allclose(weight, torch.stack([step[name] for step in after[3:]]).mean(0), atol=1e-6), name
    assert not all(torch.allclose(weight, after[-1][name], atol=1e-4) for name, weight in saved.items())


def test_a_checkpoint_that_a_kill_cut_short_is_no_checkpoint(tmp_path):
    assert train.find_checkpoint(tmp_path / "none") is None
    for step, state in [(3, "{}"), (6, ""), (9, None)]:
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert Path(train.find_checkpoint(tmp_path)).name == "checkpoint-3"


def test_a_trained_model_is_kept_until_data_or_recipe_change(tmp_path, tiny_model):
    output, profile = tmp_path / "z1", load_profile("smoke")
    log = train.fine_tune(rows(8), tiny_model, output, profile)
    written = (output / "training.json").stat().st_mtime_ns
    assert train.fine_tune(rows(8), tiny_model, output, profile) == log
    assert (output / "training.json").stat().st_mtime_ns == written
    recipe = json.loads((output / "training.json").read_text())["recipe"]
    train.fine_tune(rows(9), tiny_model, output, profile)
    assert json.loads((output / "training.json").read_text())["recipe"] != recipe
    assert {path.name for path in tmp_path.iterdir()} == {"z1", "z1.lock"}


def test_the_identity_of_a_model_is_what_it_learned_and_how_and_nothing_else(tmp_path, tiny_model):
    plain = train.hash_recipe(rows(2), tiny_model, load_profile("smoke"))
    for change in ({"lora": LORA}, {"mixed_precision": "fp16"}, {"gpus": 2}, {"seed": 1}, {"average_last": 0.2}):
        assert train.hash_recipe(rows(2), tiny_model, make_profile("smoke", **change)) != plain
    for same in ({"training_tokens_per_second": 1}, {"push_to_hub": "me/x"}, {"save_steps": 9}, {"gpus": 1}):
        assert train.hash_recipe(rows(2), tiny_model, make_profile("smoke", **same)) == plain


def test_another_chat_template_is_another_model(tmp_path, tiny_model):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    before = train.hash_recipe(rows(2), base, load_profile("smoke"))
    turns = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    (base / "chat_template.jinja").write_text(turns + "{% if add_generation_prompt %}assistant: {% endif %}")
    assert train.hash_recipe(rows(2), base, load_profile("smoke")) != before


def test_a_template_whose_end_would_end_no_decoding_stops_the_training_before_it_starts(tmp_path, tiny_model):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    (base / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.raises(data.UnfitExamples, match="ends an answer without a control token"):
        train.fine_tune(rows(2), base, tmp_path / "z1", load_profile("smoke"))
    assert not list(tmp_path.glob("z1*"))


def test_a_trained_model_names_what_ends_it_and_no_sampling_settings(tmp_path, tiny_model):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    penalty = {"repetition_penalty": 1.1, "eos_token_id": 3}
    (base / "generation_config.json").write_text(json.dumps(penalty))
    train.fine_tune(rows(4), base, tmp_path / "z1", load_profile("smoke"))
    saved = json.loads((tmp_path / "z1/generation_config.json").read_text())
    end = AutoTokenizer.from_pretrained(base).convert_tokens_to_ids("<|im_end|>")
    assert saved["eos_token_id"] == [3, end]
    assert "repetition_penalty" not in saved


def test_the_model_is_saved_in_the_dtype_of_its_base(tmp_path, tiny_model):
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(base)
    train.fine_tune(rows(4), base, tmp_path / "z1", load_profile("smoke"))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "z1", dtype="auto")
    assert saved.dtype == torch.bfloat16


def test_the_log_counts_the_response_tokens_of_every_step(tmp_path, tiny_model):
    log = train.fine_tune(rows(10), tiny_model, tmp_path / "z1", make_profile("smoke", gradient_accumulation_steps=2))
    steps = [row for row in log if "loss" in row]
    learned_tokens = sum(len("answer ") * (1 + i % 5) + 1 for i in range(10))
    assert sum(row["response_tokens"] for row in steps) == learned_tokens
    assert all(row["response_tokens_per_second"] > 0 for row in steps)


def test_the_card_says_what_the_model_was_made_from(tmp_path, tiny_model):
    profile = load_profile("smoke")
    train.fine_tune(rows(10), tiny_model, tmp_path / "z1", profile)
    card = ModelCard.load(tmp_path / "z1" / "README.md")
    assert card.data.base_model == "random"
    recipe = json.loads((tmp_path / "z1" / "training.json").read_text())["recipe"]
    for said in (
        "10 examples, 90 response tokens, from toy",
        "learning_rate: `0.001`",
        recipe,
        fingerprint(tiny_model),
    ):
        assert said in card.text
    assert version("torch") in card.text


def test_nothing_is_pushed_unless_the_profile_names_a_repository(tmp_path, monkeypatch):
    pushed = []

    class Hub:
        def create_repo(self, repository, private, exist_ok):
            pushed.append((repository, private))

        def upload_folder(self, repo_id, folder_path):
            return f"{repo_id} from {folder_path.name}"

    monkeypatch.setattr(card, "HfApi", Hub)
    assert card.push_to_hub(tmp_path / "z1", load_profile("smoke")) is None
    assert pushed == []
    named = make_profile("smoke", push_to_hub="me/study")
    assert card.push_to_hub(tmp_path / "z1", named) == "me/study-z1 from z1"
    assert pushed == [("me/study-z1", True)]


def test_a_trained_model_loads_with_its_tokenizer(tmp_path, tiny_model):
    train.fine_tune(rows(8), tiny_model, tmp_path / "z1", load_profile("smoke"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "z1")
    assert tokenizer.chat_template
    assert weights(tmp_path / "z1").keys() == weights(tiny_model).keys()
