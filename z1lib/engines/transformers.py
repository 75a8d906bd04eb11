"""The transformers engine: any device, any causal language model, one row a completion.

Rows leave the batch when they finish and others take their place; a branch copies its row's key-value cache, so that
nothing is prefilled or decoded twice. The computation of a row does not depend on its neighbours except through
floating point: another batch shape may round differently, which in float32 moves a greedy choice only where two
logits agree to about six digits, and in bfloat16 visibly more often.

Sampled tokens use noise keyed by (seed, sample, position), so a completion does not depend on the batch it was in.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from z1lib.cost import Cost
from z1lib.engines.attention import GROUPED
from z1lib.engines.base import Decoded, Request, Track, check_context, derive_seed, extend_forced
from z1lib.engines.cache import SlotCache
from z1lib.models import end_token_ids, fingerprint
from z1lib.window import Policy


@dataclass
class _Row:
    """A completion being decoded; `branch` is 0 for the request's own policy, else the branch's number.

    `prefilled`, `decoded` and `attended` add up what it has cost so far (`cost.Cost`).
    """

    index: int
    branch: int
    policy: Policy
    request: Request
    ids: list[int]
    ended: bool = False
    prefilled: int = 0
    decoded: int = 0
    attended: int = 0

    def extend(self, likeliest: int, logits: torch.Tensor, end_ids: frozenset[int]) -> None:
        """Append the next id, the likeliest or a sampled one, unless the policy puts another in its place."""
        step = self.policy.step(self.ids)
        token = likeliest if self.request.temperature == 0 else sample_token(logits, self.request, len(self.ids))
        if step.instead is not None and token in step.of:
            token = step.instead
        self.decoded += 1
        self.attended += len(self.request.prompt_ids) + len(self.ids)
        self.ids.append(token)
        self.ended = token in end_ids

    def finish(self) -> Decoded:
        return Decoded(self.ids, self.ended, Cost(self.prefilled, self.decoded, self.attended, depth=self.decoded))


class TransformersEngine:
    """Decodes with a model loaded by transformers.

    `batch_size` is the number of prompts decoded together; branches come on top. Other options go to
    `AutoModelForCausalLM.from_pretrained`.
    """

    def __init__(self, model: str, dtype=None, device: str | None = None, batch_size: int = 32, **options):
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype or "auto", attn_implementation=GROUPED, **options
        )
        self.model = loaded.to(self.device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model_name, self.fingerprint = str(model), fingerprint(model)
        self.arithmetic = f"transformers {self.model.dtype}"
        self.end_ids = end_token_ids(model, self.tokenizer)
        self.context_length = self.model.config.get_text_config().max_position_embeddings
        self.batch_size = batch_size

    @torch.inference_mode()
    def decode(self, requests: list[Request]) -> Iterator[tuple[int, list[Decoded]]]:
        """See `Engine.decode`. Every prompt is checked against the context before the first is decoded."""
        tracks: list[Track] = []
        batch = _Batch(self.model, self.device, tracks)
        queue: deque[int] = deque()
        while len(tracks) < len(requests) or queue or batch.rows:
            fresh = range(len(tracks), len(requests))
            check_context([requests[i] for i in fresh], self.context_length, first=fresh.start)
            # Long prompts tend to have long completions: started together they leave together.
            queue.extend(sorted(fresh, key=lambda i: -len(requests[i].prompt_ids)))
            tracks.extend(Track(requests[i]) for i in fresh)
            if queue and len(batch.rows) <= self.batch_size // 2:
                arrivals = [queue.popleft() for _ in range(min(self.batch_size - len(batch.rows), len(queue)))]
                batch.admit(
                    [_Row(i, 0, requests[i].policy, requests[i], list(requests[i].prefix_ids)) for i in arrivals]
                )
            batch.extend(self.end_ids)
            for index, track in enumerate(tracks):
                if track.complete():
                    yield index, track.collect()


class _Batch:
    """Rows with their cache and the logits (rows x vocabulary) of their next ids."""

    def __init__(self, model, device: str, tracks: list[Track]):
        self.model, self.device, self.tracks = model, device, tracks
        self.rows: list[_Row] = []
        self.cache = SlotCache(model.config, device)
        self.logits = torch.empty(0, device=device)

    def admit(self, rows: list[_Row]) -> None:
        """Prefill new rows, left-padded, and add them."""
        prompts = [row.request.prompt_ids + row.ids for row in rows]
        for row, prompt in zip(rows, prompts):
            row.prefilled = len(prompt)
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        prefilled = DynamicCache(config=self.model.config)
        logits = self._run(ids, mask, positions, prefilled)
        self.cache.adopt(prefilled, [len(p) for p in prompts])
        self.rows, self.logits = self.rows + rows, torch.cat([self.logits, logits])
        self._settle()
        self._feed()

    def extend(self, end_ids: frozenset[int]) -> None:
        """Give every row its next id, let finished rows go and branches part, and compute the next logits."""
        likeliest = self.logits.argmax(dim=-1).tolist()
        for row, token, logits in zip(self.rows, likeliest, self.logits):
            row.extend(token, logits, end_ids)
        self._settle()
        self._feed()

    def _feed(self) -> None:
        """Feed every row the ids its cache lacks, rows that lack equally many together, and keep the next logits."""
        filled = self.cache.lengths.tolist()
        lacking = [row.ids[length - len(row.request.prompt_ids) :] for row, length in zip(self.rows, filled)]
        for count in sorted({len(ids) for ids in lacking} - {0}):
            slots = [slot for slot, ids in enumerate(lacking) if len(ids) == count]
            positions, mask = self.cache.open(slots, count)
            for slot in slots:
                self.rows[slot].prefilled += count if count > 1 else 0
            ids = torch.tensor([lacking[slot] for slot in slots], device=self.device)
            self.logits[slots] = self._run(ids, mask, positions, self.cache)
            self.cache.close()

    def _settle(self) -> None:
        going = [self._advance(row) for row in self.rows]
        kept = [slot for slot, rows in enumerate(going) for _ in rows]
        rows = [row for group in going for row in group]
        if kept != list(range(len(self.rows))):
            place = self.cache.arrange(kept)
            rows = [rows[i] for i in place]
            self.logits = self.logits[torch.tensor([kept[i] for i in place], dtype=torch.long, device=self.device)]
        self.rows = rows

    def _advance(self, row: _Row) -> list[_Row]:
        """The rows that go on from this one: itself unless it is finished, and the branches that leave it here."""
        track = self.tracks[row.index]
        parted = track.part(row.ids, row.ended) if row.branch == 0 else []
        going = [_Row(row.index, branch, policy, row.request, ids) for branch, policy, ids in parted]
        if row.ended or row.policy.finished(row.ids):
            track.done[row.branch] = row.finish()
            return going
        extend_forced(row.policy, row.ids)
        return [row, *going]

    def _run(self, ids, mask, positions, cache) -> torch.Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()


def sample_token(logits: torch.Tensor, request: Request, position: int) -> int:
    """A token drawn by temperature and nucleus (top-p) sampling with noise keyed by seed, sample and position.

    Adding Gumbel noise to log-probabilities and taking the largest resamples from the distribution exactly.
    """
    logits = logits.cpu() / request.temperature
    if request.top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(descending=True)
        outside = ordered.cumsum(dim=-1) - ordered >= request.top_p
        logits[order[outside]] = float("-inf")
    generator = torch.Generator().manual_seed(derive_seed(request, position))
    noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=generator, dtype=torch.float64)))
    return int((logits.double() + noise).argmax())
