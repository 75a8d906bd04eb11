"""The logits processor with which vLLM follows a policy. vLLM loads it by itself, through an entry point.

One class serves both model runners: V1 calls `update_state` and `apply(logits)`, V2 calls `add_request` and
`apply(logits, ctx)` (vLLM's docs, "Logits Processors"). A request asks for it with
`engines.policy_arguments` in `extra_args` (`vllm_xargs` of an HTTP request): the policy, how many of its prompt's last
ids belong to the completion already, where it has put some of them, and an end token to close a completion that is over
early. Where a policy would put ids in the place of one, the request ends with that end token: vLLM chooses one id a
step, and only who asked can tell ids that were put there from the model's own. Other requests are left alone.

Not for speculative decoding: a row's history is read as if one token came at a time.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as ProcessorV1
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as ProcessorV2

from z1lib.engines.base import END, POLICY, PREFIX, PUT
from z1lib.window import Policy, Step, ask, from_json


@dataclass
class _Followed:
    """A request under a policy; `prefix`, its completion's ids in the prompt, and `output`, a live list, for V1."""

    policy: Policy
    put: Sequence[int]
    prefix_length: int
    end_id: int
    temperature: float
    prefix: Sequence[int] = ()
    output: Sequence[int] = ()

    def ids(self) -> Sequence[int]:
        return [*self.prefix, *self.output] if self.prefix else self.output

    def apply(self, logits: torch.Tensor, ids: Sequence[int]) -> None:
        """Change one row of logits (vocabulary) so that the next id is the policy's."""
        step = Step(force=self.end_id) if self.policy.finished(ids) else ask(self.policy, ids, self.put)
        if step.force is not None:
            logits.fill_(float("-inf"))
            logits[step.force] = 0
        elif step.instead:
            gather(logits, self.end_id, step.of, self.temperature)
        elif step.forbid:
            logits[list(step.forbid)] = float("-inf")


def gather(logits: torch.Tensor, into: int, of: Sequence[int], temperature: float) -> None:
    """Give one id the probability of all these, itself among them, in one row of logits (vocabulary)."""
    moved = logits[list(of)]
    whole = temperature * torch.logsumexp(moved / temperature, dim=0) if temperature > 0 else moved.max()
    logits[list(of)] = float("-inf")
    logits[into] = whole


def follow(params, prompt_ids: list[int] | None = None, output_ids: Sequence[int] = ()) -> _Followed | None:
    """What a request's sampling parameters ask for; None if nothing. Raises ValueError for a malformed policy."""
    extra = getattr(params, "extra_args", None) or {}
    if POLICY not in extra:
        return None
    length = int(extra.get(PREFIX, 0))
    prefix = (prompt_ids or [])[len(prompt_ids or []) - length :] if length else ()
    end_id = int(extra.get(END, 0))
    put = json.loads(extra.get(PUT, "[]"))
    return _Followed(from_json(extra[POLICY]), put, length, end_id, params.temperature, prefix, output_ids)


class PolicyProcessor(ProcessorV1, ProcessorV2):
    """See the module. `runner` is (device, is_pin_memory) under V1 and (request states,) under V2."""

    def __init__(self, vllm_config, *runner):
        self.states = runner[0] if len(runner) == 1 else None
        self.ids_are_late = self.states is None and vllm_config.scheduler_config.async_scheduling
        self.followed: dict[int, _Followed] = {}  # by row of the batch under V1, by request slot under V2

    @classmethod
    def validate_params(cls, params) -> None:
        follow(params)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update) -> None:
        process_dict_updates(self.followed, batch_update, self._follow)

    def _follow(self, params, prompt_ids, output_ids) -> _Followed | None:
        """As `follow`, under V1. With asynchronous scheduling the last ids come too late: a policy that reads them is
        not followed, and the server engine, which checks every token, decodes such a completion in pieces.
        """
        asked = follow(params, prompt_ids, output_ids)
        return None if asked and asked.policy.reads_ids and self.ids_are_late else asked

    def add_request(self, req_idx: int, params) -> bool:
        self.followed.pop(req_idx, None)
        asked = follow(params)
        if asked:
            self.followed[req_idx] = asked
        return asked is not None

    def apply(self, logits: torch.Tensor, ctx=None) -> torch.Tensor:
        rows = ((row, asked, asked.ids()) for row, asked in self.followed.items()) if ctx is None else self._slots(ctx)
        for row, asked, ids in rows:
            asked.apply(logits[row], ids)
        return logits

    def _slots(self, ctx) -> Iterator[tuple[int, _Followed, Sequence[int]]]:
        """(row, request, ids of its completion so far) under V2; only policies that read them fetch the ids."""
        for row, (slot, length) in enumerate(zip(ctx.idx_mapping_np.tolist(), ctx.seq_lens_upper_bound_np.tolist())):
            asked = self.followed.get(slot)
            start = int(self.states.prompt_len.np[slot]) - asked.prefix_length if asked else length
            if asked is None or length < start + asked.prefix_length:  # the prompt is not read to its end yet
                continue
            ids = range(length - start)
            if asked.policy.reads_ids:
                ids = self.states.all_token_ids.gpu[slot, start:length].tolist()
            yield row, asked, ids
