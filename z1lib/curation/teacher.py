"""Asking a language model for trajectories, or for new questions: datatrove's inference runner, any number of servers.

A server is anything that speaks OpenAI's chat protocol, such as `vllm serve Qwen/QwQ-32B-Preview`. The steps run under
any executor of datatrove; here on this machine, which sends to servers wherever they are.
"""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.inference.servers import EndpointServer
from datatrove.pipeline.inference.types import InferenceError
from datatrove.pipeline.writers import JsonlWriter

from z1lib.chat import conversation, encode_prompt
from z1lib.curation.filters import Faults
from z1lib.curation.pipeline import LocalExecutor, Rejected, make_exclusion_writer, read_shards, to_rejected
from z1lib.curation.reader import RowReader
from z1lib.engines.base import NEUTRAL, Engine, load_engine
from z1lib.files import hash_path
from z1lib.inference.decode import generate
from z1lib.profile import Profile
from z1lib.window import Truncation

NEEDS = ("id", "question")
SAVE_EVERY = 100  # answers of a share between two files; single answers of a server survive a kill in any case
SHARE = 1000  # questions dealt out together: what a kill costs an engine of this process

# The moves of Evol-Instruct (arXiv 2304.12244, for code 2306.08568) in our own words.
EVOLUTIONS = {
    "deepen": (
        "Here is a programming task:\n\n{question}\n\nRewrite it so that solving it takes more thought: add one "
        "requirement, ask for a rarer case to be handled, or tighten the limit on time or memory. It must stay one "
        "task that a good programmer can solve from its text alone, and grow by no more than three sentences. Answer "
        "with the new task and nothing else."
    ),
    "broaden": (
        "Here is a programming task:\n\n{question}\n\nWrite another task from the same field and about as difficult, "
        "about something this one does not touch, as if for the next page of the same collection. It must be "
        "self-contained. Answer with the new task and nothing else."
    ),
}


@dataclass(frozen=True)
class Answer:
    """What a `teacher` wrote for a question. `truncated`: the token limit cut it. The rest came with the question."""

    id: str
    question: str
    response: str
    truncated: bool
    teacher: str
    source: str
    level: int | None
    reference: str | None
    kind: str | None


@dataclass(frozen=True)
class Question:
    """A question an evolution made: `id` is the old question's and the move, `source` the model that wrote it."""

    id: str
    question: str
    source: str


def estimate_cost(questions: int, tokens_each: float, gpus: int, tokens_per_second: float) -> str:
    """What `questions` answers of `tokens_each` tokens cost, in words, at a stated rate of one copy on `gpus`."""
    tokens = questions * tokens_each
    hours = tokens / tokens_per_second / 3600
    return (
        f"{questions:,} questions x {tokens_each:,.0f} tokens = {tokens / 1e6:,.1f}M tokens: {hours:,.1f} hours of one "
        f"copy, {hours * gpus:,.1f} GPU hours, at an assumed {tokens_per_second:,.0f} tokens/s on {gpus} GPU(s)"
    )


def rate_of(profile: Profile) -> dict:
    """The profile's stated rate: GPUs of one copy of the teacher, and its tokens a second."""
    return profile.curation.teacher.model_dump(include={"gpus", "tokens_per_second"})


def find_teacher(profile: Profile) -> list[str] | Engine:
    """The profile's servers; where it names none, its model on vLLM here. Raises what `load_engine` raises."""
    teacher = profile.curation.teacher
    if teacher.servers:
        return teacher.servers
    return load_engine("vllm", teacher.model, tensor_parallel_size=max(1, teacher.gpus))


def teach(
    files: list[Path],
    names: dict[str, str],
    teacher: list[str] | Engine,
    profile: Profile,
    folder: Path,
    expected_tokens: int = 1159,
    evolution: str | None = None,
    share: int = SHARE,
    executor: Callable = LocalExecutor,
) -> tuple[list[Answer], list[Rejected]]:
    """One answer to every question of `files`, by the profile's teacher; and the rows that could not be asked.

    `teacher`: the addresses of servers (plain HTTP, such as "http://127.0.0.1:8000"), or an engine of this process.
    The questions are dealt into shares of about `share`; as many run at once as there are servers. Goes on where it was
    killed: an answer of a server is not asked for again, nor a finished share of an engine. Prints the cost first, at
    `expected_tokens` an answer (the paper's mean). With an `evolution` of EVOLUTIONS, the question is put into its
    prompt. `executor` as in `curate`, for servers alone. Raises datatrove's ServerError or InferenceError when a server
    stays out of reach or fails; a question it refuses (too long for its context) comes back as rejected.
    """
    documents = list(RowReader(files, names, NEEDS, profile.curation.train_problems)(None))
    asked = sum(not document.metadata["fault"] for document in documents)
    print(estimate_cost(asked, expected_tokens, **rate_of(profile)))
    shares = -(-len(documents) // share)
    work = folder / _key(files, names, profile, evolution, shares)
    work.mkdir(parents=True, exist_ok=True)
    steps = make_steps(files, names, teacher, profile, work, evolution)
    workers = min(shares, len(teacher)) if isinstance(teacher, list) else 1
    run = executor(steps, tasks=shares, workers=workers, logging_dir=str(work / "logs")).run
    with ThreadPoolExecutor(1) as thread:  # a notebook's own thread has an event loop already
        thread.submit(run).result()
    return _collect(work, profile)


def evolve(answers: list[Answer], move: str) -> list[Question]:
    """The new questions among what the teacher answered to an evolution prompt; one that was cut is none."""
    return [Question(f"{one.id}-{move}", one.response.strip(), one.teacher) for one in answers if not one.truncated]


def make_steps(
    files: list[Path],
    names: dict[str, str],
    teacher: list[str] | Engine,
    profile: Profile,
    work: Path,
    evolution: str | None,
) -> list[PipelineStep]:
    """datatrove's steps, for any of its executors: read the questions, put aside what is none, ask, write."""
    prompt = prompt_of(evolution)
    writer = JsonlWriter(str(work / "answers"), "${rank}_${chunk_index}.jsonl", compression=None)
    if isinstance(teacher, list):
        asker = Asker(teacher, profile, prompt, writer, work / "checkpoints")
    else:
        asker = EngineAsker(lambda questions: ask_engine(teacher, questions, profile, prompt), writer)
    return [
        RowReader(files, names, NEEDS, profile.curation.train_problems),
        Faults(make_exclusion_writer(work / "dropped")),
        asker,
    ]


def prompt_of(evolution: str | None) -> str:
    return EVOLUTIONS[evolution] if evolution else "{question}"


class Asker(InferenceRunner):
    """datatrove's runner with a server for every share, the servers in turn."""

    def __init__(self, servers: list[str], profile: Profile, prompt: str, writer: JsonlWriter, checkpoints: Path):
        address = {"endpoint_url": servers[0], "api_key": "none"}
        config = InferenceConfig(
            "endpoint", profile.curation.teacher.model, **address, default_generation_params=_sampling(profile)
        )
        rollout = partial(ask, seed=profile.seed, prompt=prompt)
        super().__init__(rollout, config, writer, checkpoints_local_dir=str(checkpoints), records_per_chunk=SAVE_EVERY)
        self.servers = servers

    def _init_server(self, rank: int) -> EndpointServer:
        server = EndpointServer(replace(self.config, endpoint_url=self.servers[rank % len(self.servers)]), rank)
        server.client = None  # the OpenAI client asks under another path than the check for readiness does
        return server


class EngineAsker(PipelineStep):
    """Asks an engine of this process for a whole share at once; `answer` gives one result a question."""

    type = "Model call"
    name = "🧑‍🏫 Engine"

    def __init__(self, answer: Callable[[list[str]], list[dict]], writer: JsonlWriter):
        super().__init__()
        self.answer, self.writer = answer, writer  # a function, because datatrove copies its steps

    def run(self, data, rank: int = 0, world_size: int = 1) -> None:
        documents = list(data)
        with self.writer as writer:
            for document, result in zip(documents, self.answer([document.text for document in documents])):
                document.metadata["rollout_results"] = [result]
                writer.write(document, rank, chunk_index=0)


def ask_engine(engine: Engine, questions: list[str], profile: Profile, prompt: str) -> list[dict]:
    """Answers of an engine, sampled as the profile says. An end of the model's own is no truncation."""
    policy, sampling = Truncation(profile.curation.teacher.max_tokens), profile.curation.teacher
    messages = [conversation(prompt.replace("{question}", question), None) for question in questions]
    prompts = [encode_prompt(engine.tokenizer, one) for one in messages]
    rows = generate(engine, prompts, policy, 1, sampling.temperature, sampling.top_p, profile.seed)
    return [{"text": one.thinking_text, "truncated": one.finish_reason == "length"} for [one] in rows]


async def ask(document: Document, generate: Callable, seed: int, prompt: str) -> dict:
    """One answer, sampled with a seed of its own, so that it does not depend on the order of the questions."""
    noise = int.from_bytes(hashlib.sha256(f"{seed}/{document.id}".encode()).digest()[:4], "little") >> 1
    content = prompt.replace("{question}", document.text)
    try:
        result = await generate({"messages": [{"role": "user", "content": content}], "seed": noise})
    except InferenceError as error:
        if "BadRequestError" not in str(error.error):
            raise
        return {"refused": str(error.error)}
    text = "\n\n".join(part for part in (result.reasoning, result.text) if part)  # some servers hand them over apart
    return {"text": text, "truncated": result.finish_reason == "length"}


def _sampling(profile: Profile) -> dict:
    """What every request states, so that a server adds nothing of the model's own (`engines.base.NEUTRAL`)."""
    return {**profile.curation.teacher.model_dump(include={"max_tokens", "temperature", "top_p"}), **NEUTRAL}


def _key(files, names, profile: Profile, evolution: str | None, shares: int) -> str:
    asked = [profile.curation.teacher.model, _sampling(profile), profile.seed, profile.curation.train_problems]
    whole = [[hash_path(Path(file)) for file in files], names, *asked]
    return hashlib.sha256(json.dumps([*whole, prompt_of(evolution), shares]).encode()).hexdigest()[:16]


def _collect(work: Path, profile: Profile) -> tuple[list[Answer], list[Rejected]]:
    found = [json.loads(line) for file in sorted((work / "answers").glob("*.jsonl")) for line in file.open("rb")]
    rejected = [to_rejected(row, "teacher") for row in read_shards(work / "dropped")]
    answers = []
    for row in sorted(found, key=lambda row: row["metadata"]["position"]):
        [result] = row["metadata"]["rollout_results"]
        if "refused" in result:
            where = row["metadata"]["row"]
            rejected.append(Rejected(row["id"], where, "teacher", "refused", result["refused"], row["text"], ""))
        else:
            told = (row["id"], row["text"], result["text"], result["truncated"], profile.curation.teacher.model)
            values = {column: row["metadata"].get(column) for column in ("source", "level", "reference", "kind")}
            answers.append(Answer(*told, **values | {"source": values["source"] or ""}))
    return answers, rejected
