"""The pool: several answers to the same problems, under several windows, and how sure the model is of each.

*Longer* and *wider* are its two axes. Notebook 05 replays every rule from it; nothing is decoded there.
"""

from z1lib.engines.base import load_engine
from z1lib.files import Journal, read_jsonl
from z1lib.hardware import check_hardware, decoding_dtype
from z1lib.inference.confidence import rate
from z1lib.inference.sweep import first_of_each, sweep_problems
from z1lib.models import shape_of
from z1lib.records import POOL, Completion, Confidence, Problem, Shape
from z1lib.study import Study
from z1lib.window import ShiftedWindow

SAMPLED = ("samples", "confidences")


def find_shapes(study: Study) -> list[Shape]:
    """What an answer costs by, of every model that notebook 05 looks at; the committed ones where those are read."""
    asked = study.profile.inference
    if study.reads_committed:
        offered = study.offers("shapes.jsonl")
        return read_jsonl(study.need("shapes.jsonl", "03_windowed_inference"), Shape) if offered else []
    runs = dict.fromkeys([*asked.pool.models, *asked.cheaper.models])
    models = [model for run in runs for model in study.profile.models_of(run)]
    return [shape_of(study.model(model), model) for model in models]


def decode_pool(study: Study, problems: list[Problem]) -> tuple[list[Completion], list[Confidence]]:
    """The samples that the study's profile asks for, and the scores of each by the model that wrote it.

    Each sample is decoded once, its windows are branches of it. Goes on from journals as `sweep.decode_study` does, and
    raises what that raises. The committed ones where the study reads those.
    """
    profile, asked = study.profile, study.profile.inference
    if not asked.pool.models or (study.reads_committed and not study.offers("samples.jsonl")):
        return [], []
    if study.reads_committed:
        return tuple(read_jsonl(study.need(f"{name}.jsonl", "03_windowed_inference"), POOL[name]) for name in SAMPLED)
    check_hardware(profile)
    journals = [Journal(study.path(f"{name}.partial.jsonl"), POOL[name]) for name in SAMPLED]
    chosen = first_of_each(problems, {**dict.fromkeys(profile.curation.test_problems, 0), **asked.pool.problems})
    hint = profile.hint_of(ShiftedWindow.name)
    policies = [ShiftedWindow(window, hint, asked.max_answer_tokens) for window in asked.pool.windows]
    samples, scores = [], []
    for model in [model for run in asked.pool.models for model in profile.models_of(run)]:
        engine = load_engine(asked.engine, study.model(model), decoding_dtype(profile), **asked.engine_options)
        sampling = (profile.system_prompt_of, asked.pool.n, asked.pool.temperature, asked.pool.top_p)
        for seed in asked.pool.seeds:
            rows = sweep_problems(engine, chosen, [policies] * len(chosen), journals[0], *sampling, seed)
            scores += rate(engine, chosen, rows, journals[1], profile.system_prompt_of, tell=print)
            samples += rows
        del engine  # before the next model is loaded
    return samples, scores
