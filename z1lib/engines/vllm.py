"""The vLLM engine: one continuous batch, requests with their own policies in it, the hint forced inside the decoder.

A branch starts as soon as its trace has passed the window, while the trace goes on; its prompt holds the trace so far,
which costs a prefill unless prefix caching has it (`enable_prefix_caching`, vLLM's default).

Greedy completions are those of single requests up to floating point: vLLM batches as it likes, and where two logits
nearly agree another batch may choose the other one. Sampled completions repeat with their seed; vLLM draws its noise
from a stream that starts anew with each request, so a branch shares its trace but draws other noise behind it than
`generate` at that window would: the same distribution, not the same tokens.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import AutoConfig
from vllm import LLM, SamplingParams
from vllm.inputs import TokensPrompt
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind

from z1lib.cost import Cost
from z1lib.engines.base import (
    Decoded,
    Question,
    Request,
    Track,
    check_prompts,
    check_questions,
    extend_chosen,
    extend_forced,
    policy_arguments,
    sampling_settings,
)
from z1lib.models import end_token_ids, fingerprint
from z1lib.window import Policy, ask


@dataclass
class _Running:
    """A request inside vLLM: the completion of branch `branch` (0 is the request's own)."""

    index: int
    track: Track
    branch: int
    policy: Policy
    ids: list[int]
    put: list[int]
    decoded: int = 0  # by the request under way; forced ids too: vLLM steps through them
    cost: Cost = Cost()

    def charge(self, prompt: int, cached: int) -> None:
        """Add what the request that is done has cost; the next one starts at nothing."""
        decoded, self.decoded = self.decoded, 0
        attended = decoded * prompt + decoded * (decoded - 1) // 2
        self.cost += Cost(prompt - cached, decoded, attended, depth=decoded)


class VllmEngine:
    """Decodes with vLLM in this process; `options` go to `vllm.LLM` (tensor_parallel_size, quantization, ...)."""

    def __init__(self, model: str, dtype: str | None = None, **options):
        if options.get("speculative_config"):
            raise ValueError("speculative decoding and policies do not go together (see engines/vllm_plugin.py)")
        if current_platform.is_cpu():
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; vLLM asks for it
            # vLLM takes back the noise of a seeded request whose prompt it has cut, which torch cannot on a CPU.
            options.setdefault("enable_chunked_prefill", False)
        if dtype is None:  # vLLM's "auto" would make bfloat16 of float32
            dtype = str(AutoConfig.from_pretrained(model).get_text_config().dtype).removeprefix("torch.")
        self.llm = LLM(model=str(model), dtype=dtype, **{"disable_log_stats": True, **options})
        self.tokenizer = self.llm.get_tokenizer()
        self.model_name, self.fingerprint = str(model), fingerprint(model)
        self.end_ids = end_token_ids(model, self.tokenizer)
        config = self.llm.llm_engine.vllm_config
        self.arithmetic = f"vllm {config.model_config.dtype} {config.model_config.quantization}"
        self.context_length = config.model_config.max_model_len
        self.vocabulary = config.model_config.get_vocab_size()
        self.reads_stale_ids = config.scheduler_config.async_scheduling and not config.use_v2_model_runner
        self.started = 0

    def decode(self, requests: list[Request]) -> Iterator[tuple[int, list[Decoded]]]:
        """See `Engine.decode`. Raises ValueError before decoding for a context that is too small."""
        tracks: list[Track] = []
        running: dict[str, _Running] = {}
        try:
            while len(tracks) < len(requests) or running:
                fresh = range(len(tracks), len(requests))
                check_prompts([requests[i] for i in fresh], self, first=fresh.start)
                for index in fresh:
                    request = requests[index]
                    tracks.append(Track(request))
                    self._start(running, _Running(index, tracks[index], 0, request.policy, *request.begin()))
                for index in {*fresh, *self._step(running)}:
                    if tracks[index].complete():
                        yield index, tracks[index].collect()
        finally:  # the caller stopped early, or something failed: vLLM must not go on
            self.llm.llm_engine.abort_request(list(running))

    def score(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `Engine.score`."""
        check_questions(questions, self)
        prompts = [TokensPrompt(prompt_token_ids=list(prefix)) for prefix, _ in questions]
        params = [
            SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, logprob_token_ids=[*set(asked)])
            for _, asked in questions
        ]
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        pairs = zip(questions, (output.outputs[0].logprobs[0] for output in outputs))
        return [[found[i].logprob for i in asked] for (_, asked), found in pairs]

    def reread(self, answers: Sequence[Question]) -> list[list[float]]:
        """See `Engine.reread`."""
        check_questions(answers, self, answered=True)
        prompts = [TokensPrompt(prompt_token_ids=[*prefix, *ids]) for prefix, ids in answers]
        reading = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, prompt_logprobs=0)
        outputs = self.llm.generate(prompts, reading, use_tqdm=False)
        pairs = zip(answers, (output.prompt_logprobs for output in outputs))
        return [[at[i].logprob for i, at in zip(ids, found[len(prefix) :])] for (prefix, ids), found in pairs]

    def _start(self, running: dict[str, _Running], one: _Running) -> None:
        """Hand a completion to vLLM; at a window of 0 it parts and has its hint before anything is decoded."""
        if self.reads_stale_ids and one.policy.reads_ids:
            raise ValueError(f"{one.policy.name} reads the ids: under model runner V1 pass async_scheduling=False")
        self._part(running, one, ended=False)
        extend_forced(one.policy, one.ids, one.put)
        if one.policy.finished(one.ids):
            one.track.done[one.branch] = Decoded(one.ids, False, tuple(one.put), one.cost)
            return
        self.started += 1
        prompt = TokensPrompt(prompt_token_ids=one.track.request.prompt_ids + one.ids)
        self.llm.llm_engine.add_request(str(self.started), prompt, make_params(one, self.end_ids))
        running[str(self.started)] = one

    def _part(self, running: dict[str, _Running], one: _Running, ended: bool) -> None:
        if one.branch == 0:
            for branch, policy, *written in one.track.part(one.ids, one.put, ended):
                self._start(running, _Running(one.index, one.track, branch, policy, *written))

    def _step(self, running: dict[str, _Running]) -> list[int]:
        """One step of vLLM; the indices of the requests it moved."""
        moved = []
        for output in self.llm.llm_engine.step() if running else []:
            one = running[output.request_id]
            [fresh] = output.outputs
            one.ids += fresh.token_ids
            moved.append(one.index)
            one.decoded += len(fresh.token_ids)
            ended, before = False, len(one.put)
            if fresh.finish_reason == "stop":
                closing = one.ids.pop()
                if not one.policy.finished(one.ids):  # else it is our processor's end token, not the model's
                    ended = extend_chosen(ask(one.policy, one.ids, one.put), one.ids, one.put, closing)
            self._part(running, one, ended)
            if output.finished:
                one.charge(len(output.prompt_token_ids), output.num_cached_tokens or 0)
                del running[output.request_id]
                if len(one.put) > before:  # behind what the policy has put there it goes on, as another request
                    self._start(running, one)
                else:
                    one.track.done[one.branch] = Decoded(one.ids, ended, tuple(one.put), one.cost)
        return moved


def make_params(one: _Running, end_ids: frozenset[int]) -> SamplingParams:
    """vLLM's parameters for what is left of a completion."""
    request, position = one.track.request, len(one.ids)
    grows = not one.branch and bool(request.branches or request.watch)  # each id is needed as it comes
    return SamplingParams(
        max_tokens=one.policy.max_tokens - position,
        stop_token_ids=sorted(end_ids),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA if grows else RequestOutputKind.FINAL_ONLY,
        extra_args=policy_arguments(one.policy, position, one.put, end_ids),
        **sampling_settings(request, position),
    )
