"""The transformers engine: any device, any causal language model, one row a completion.

Rows leave the batch when they finish and others take their place; a branch copies its row's key-value cache, so that
nothing is prefilled or decoded twice. The computation of a row does not depend on its neighbours except through
floating point: another batch shape may round differently, which in float32 moves a greedy choice only where two
logits agree to about six digits, and in bfloat16 visibly more often.

Sampled tokens use noise keyed by (prompt, seed, sample, position), so a completion does not depend on the batch it was
in.
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from z1lib.attention import INSTEAD, UnsupportedModel, check_same, draw_row, find_reach
from z1lib.cost import Cost
from z1lib.engines.attention import PAGED
from z1lib.engines.base import (
    Decoded,
    Question,
    Request,
    Track,
    check_prompts,
    check_questions,
    derive_seed,
    extend_chosen,
    extend_forced,
)
from z1lib.engines.cache import PagedCache, bytes_per_position
from z1lib.engines.drafts import look_up
from z1lib.engines.sparse import SPARSE, Memory, Sparse, find_stream
from z1lib.hardware import free_memory
from z1lib.models import end_token_ids, fingerprint
from z1lib.window import Policy, Step, ask, check_count

# Large pages of memory, on Linux: far fewer page faults where tensors are allocated anew. torch reads it once.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
MOST = 512  # completions, where no number is asked for: the fewer wait, the fewer steps are left with few rows
ADMITTED = 8  # rows are admitted when one in so many is free, for a prefill of several
TOKENS = 2048  # fed together at most: what a layer computes of more would not stay in a processor's caches


@dataclass
class _Row:
    """A completion being decoded; `branch` is 0 for the request's own policy, else the branch's number.

    `prefilled` and all behind it add up what it has cost so far (`cost.Cost`).
    """

    index: int
    branch: int
    policy: Policy
    request: Request
    ids: list[int]
    put: list[int]
    ended: bool = False
    prefilled: int = 0
    decoded: int = 0
    attended: int = 0
    scored: int = 0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0

    def extend(
        self, step: Step, likeliest: int, logits: torch.Tensor, end_ids: frozenset[int], price: Callable
    ) -> None:
        """Append the next id, the likeliest or a sampled one, unless the policy's step puts others in its place.

        `price`: what a token with so many positions before it attends to, and scores to choose them.
        """
        token = likeliest if self.request.temperature == 0 else sample_token(logits, self.request, len(self.ids))
        self.decoded += 1
        attended, scored = price(len(self.request.prompt_ids) + len(self.ids))
        self.attended, self.scored = self.attended + attended, self.scored + scored
        self.ended = extend_chosen(step, self.ids, self.put, token) and token in end_ids

    def last(self) -> int:
        return self.ids[-1] if self.ids else self.request.prompt_ids[-1]

    def finish(self) -> Decoded:
        drafts = {"drafted": self.drafted, "accepted": self.accepted}
        cost = Cost(self.prefilled, self.decoded, self.attended, self.scored, depth=self.passes, **drafts)
        return Decoded(self.ids, self.ended, tuple(self.put), cost)


class TransformersEngine:
    """Decodes with a model loaded by transformers.

    At most `batch_size` completions are decoded together, fewer where their keys and values do not fit the memory;
    branches come on top. `attention` gives new tokens a budget of positions. `draft_tokens`: so many are guessed from
    what is written and checked together (`engines.drafts`), which pays where few completions are decoded. Other options
    go to `AutoModelForCausalLM.from_pretrained`. Raises ValueError for drafts under a budget: they are checked densely.
    """

    def __init__(
        self,
        model: str,
        dtype=None,
        device: str | None = None,
        batch_size: int | None = None,
        attention: Sparse | None = None,
        draft_tokens: int | None = None,
        **options,
    ):
        if batch_size is not None:
            check_count("batch_size", batch_size)
        if draft_tokens is not None:
            check_count("draft_tokens", draft_tokens)
        if attention and draft_tokens:
            raise ValueError("draft_tokens: drafts are checked by dense attention, take either them or a budget")
        self.attention, self.draft_tokens = attention, draft_tokens or 0
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        config = AutoConfig.from_pretrained(model)
        self.reach = find_reach(config)
        latent = hasattr(config.get_text_config(), "kv_lora_rank")  # keys are made anew of what is cached
        if attention and (self.reach or latent):
            kind = "latent attention" if latent else "layers with a sliding window"
            raise UnsupportedModel(f"{model} has {kind}, to which a budget cannot be given: {INSTEAD}")
        try:
            loaded = AutoModelForCausalLM.from_pretrained(
                model, dtype=dtype or "auto", attn_implementation=SPARSE if attention else PAGED, **options
            )
        except KeyError as error:  # of a model whose attention is not to be chosen
            raise UnsupportedModel(f"{model} has an attention that cannot be replaced: {INSTEAD}") from error
        self.model = loaded.to(self.device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model_name, self.fingerprint = str(model), fingerprint(model)
        self.arithmetic = f"transformers {self.model.dtype}" + (f", {attention}" if attention else "")
        self.arithmetic += f", drafts of {draft_tokens}" if draft_tokens else ""  # another product for each length
        self.end_ids = end_token_ids(model, self.tokenizer)
        self.context_length = self.model.config.get_text_config().max_position_embeddings
        self.vocabulary = self.model.get_input_embeddings().num_embeddings
        self.batch_size = batch_size
        self._check_attention()

    @torch.inference_mode()
    def decode(self, requests: list[Request]) -> Iterator[tuple[int, list[Decoded]]]:
        """See `Engine.decode`. Every prompt is checked against the context before the first is decoded."""
        tracks: list[Track] = []
        batch = _Batch(self.model, self.device, tracks, self.attention, self.draft_tokens)
        queue: deque[int] = deque()
        size = 1
        while len(tracks) < len(requests) or queue or batch.rows:
            fresh = range(len(tracks), len(requests))
            check_prompts([requests[i] for i in fresh], self, first=fresh.start)
            self._check_reach([requests[i] for i in fresh], first=fresh.start)
            # Long prompts tend to have long completions: started first they do not run on alone.
            queue.extend(sorted(fresh, key=lambda i: -len(requests[i].prompt_ids)))
            tracks.extend(Track(requests[i]) for i in fresh)
            size = self._fitting(requests[i] for i in fresh) if fresh else size
            free = size - len(batch.rows)
            if queue and (free >= max(1, size // ADMITTED) or not batch.rows):
                arrivals = [queue.popleft() for _ in range(min(free, len(queue)))]
                batch.admit([_Row(i, 0, requests[i].policy, requests[i], *requests[i].begin()) for i in arrivals])
            batch.extend(self.end_ids)
            for index in sorted(batch.moved):
                if tracks[index].complete():
                    yield index, tracks[index].collect()
            batch.moved.clear()

    @torch.inference_mode()
    def _check_attention(self) -> None:
        """Raises UnsupportedModel unless decoding gives what the model gives by itself."""

        def decode(ids: torch.Tensor) -> torch.Tensor:
            """The last quarter a token at a time, the rest at once."""
            batch, known = _Batch(self.model, self.device, []), len(ids) * 3 // 4
            batch.cache.append(1)
            batch.read([0], [ids[:known].tolist()])
            return torch.cat([batch.feed([token])[:1] for token in ids[known:].tolist()])

        check_same(self.model, decode, draw_row(self.model, self.reach))

    def _check_reach(self, requests: list[Request], first: int) -> None:
        """Raises ValueError for a completion that may grow beyond what every layer of the model looks back on."""
        for index, request in enumerate(requests if self.reach else [], start=first):
            if request.longest > self.reach:
                raise ValueError(
                    f"prompt {index}: up to {request.longest} tokens, and layers of this model look back on "
                    f"{self.reach}, which this engine does not imitate: take engine 'vllm', or lower the window or the "
                    "answer budget"
                )

    @torch.inference_mode()
    def score(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `Engine.score`. What a prefix costs is one pass over it, with a single row of the vocabulary."""
        check_questions(questions, self)
        scores: list[list[float]] = [[] for _ in questions]
        for part in _pack([len(prefix) for prefix, _ in questions], TOKENS):
            batch = _Batch(self.model, self.device, [])
            batch.cache.append(len(part))
            prefixes = [list(questions[i][0]) for i in part]
            long = [slot for slot, prefix in enumerate(prefixes) if len(prefix) > 1]
            if long:
                batch.read(long, [prefixes[slot][:-1] for slot in long])
            logits = batch.feed([prefix[-1] for prefix in prefixes])
            for index, row in zip(part, logits.float().log_softmax(dim=-1)):
                scores[index] = row[list(questions[index][1])].tolist()
        return scores

    @torch.inference_mode()
    def reread(self, answers: Sequence[Question]) -> list[list[float]]:
        """See `Engine.reread`. One pass over prefix and answer, with a row of the vocabulary for every id."""
        check_questions(answers, self, answered=True)
        scores: list[list[float]] = [[] for _ in answers]
        for part in _pack([len(prefix) + len(ids) for prefix, ids in answers], TOKENS // 4):
            batch = _Batch(self.model, self.device, [])
            batch.cache.append(len(part))
            rows = [[*answers[i][0], *answers[i][1]][:-1] for i in part]
            first = min(len(answers[i][0]) for i in part) - 1
            logits = batch.read(
                list(range(len(part))), rows, self.model, logits_to_keep=max(map(len, rows)) - first
            ).logits
            for index, row, own in zip(part, rows, logits):
                ids, end = answers[index][1], len(row) - first
                likely = own[end - len(ids) : end].float().log_softmax(dim=-1)
                scores[index] = likely[range(len(ids)), list(ids)].tolist()
        return scores

    def _fitting(self, requests: Iterable[Request]) -> int:
        """How many completions are decoded together: what was asked, or MOST, unless the memory holds fewer.

        Half of what is free is theirs, the other half is for branches and for what the model computes on the way.
        """
        longest = max(len(one.prompt_ids) + one.policy.max_tokens for one in requests)
        fitting = max(1, free_memory() // 2 // (longest * bytes_per_position(self.model)))
        if self.batch_size and fitting < self.batch_size:
            warnings.warn(
                f"{self.batch_size} completions of up to {longest} tokens do not fit the memory: {fitting} do",
                stacklevel=2,
            )
        return min(self.batch_size or MOST, fitting)


class _Batch:
    """Rows with their cache. Between steps it lacks the last id of every row, and of no row more."""

    def __init__(self, model, device: str, tracks: list[Track], attention: Sparse | None = None, draft_tokens: int = 0):
        self.model, self.device, self.tracks, self.draft_tokens = model, device, tracks, draft_tokens
        self.rows: list[_Row] = []
        self.cache = PagedCache(model.config, device)
        self.memory = Memory(attention, stream=find_stream(device)) if attention else None
        self.moved: set[int] = set()  # requests of which a completion is done since the caller last looked

    def admit(self, rows: list[_Row]) -> None:
        """Prefill new rows and add them."""
        self.rows += rows
        self.cache.append(len(rows))
        if self.memory:
            self.memory.append(len(rows))
        self._fill()
        for row in rows:
            row.prefilled += 1  # the last id of what was given, which the next step feeds
        self._settle()
        self._fill()

    def extend(self, end_ids: frozenset[int]) -> None:
        """Give every row its next id, let finished rows go and branches part."""
        if not self.rows:
            return
        drafts = [self._draft(row) for row in self.rows] if self.draft_tokens else []
        self._extend_drafted(drafts, end_ids) if any(drafts) else self._extend_each(end_ids)
        self._settle()
        self._fill()

    def _extend_each(self, end_ids: frozenset[int]) -> None:
        """A token for every row."""
        logits = self.feed([row.last() for row in self.rows])
        steps = [_ask(row, own) for row, own in zip(self.rows, logits)]
        for row, step, token, own in zip(self.rows, steps, _likeliest(logits), logits):
            row.extend(step, token, own, end_ids, self._price)
            row.passes += 1

    def _draft(self, row: _Row) -> list[int]:
        """What may come next, as far as the row may still go."""
        most = min(self.draft_tokens, row.policy.max_tokens - len(row.ids) - 1)
        return look_up(row.request.prompt_ids + row.ids, most) if most > 0 else []

    def _extend_drafted(self, drafts: list[list[int]], end_ids: frozenset[int]) -> None:
        """A token for every row, and one more for each that its draft has right, up to where its policy steps in."""
        filled = list(self.cache.lengths)
        fed = [[row.last(), *draft] for row, draft in zip(self.rows, drafts)]
        logits = self.read(list(range(len(fed))), fed, self.model).logits
        for slot, (row, draft, own) in enumerate(zip(self.rows, drafts, logits)):
            gained = self._check(row, draft, own, end_ids)
            row.passes, row.drafted, row.accepted = row.passes + 1, row.drafted + len(draft), row.accepted + gained - 1
            self.cache.lengths[slot] = filled[slot] + gained  # what lies behind is not seen, and written over

    def _check(self, row: _Row, draft: list[int], logits: torch.Tensor, end_ids: frozenset[int]) -> int:
        """Extend a row as long as it writes what was drafted. Returns by how many passes without drafts."""
        for count, own in enumerate(logits[: len(draft) + 1], start=1):
            step = _ask(row, own)
            before = len(row.ids)
            row.extend(step, _likeliest(own[None])[0], own, end_ids, self._price)
            if row.ids[before:] != draft[count - 1 : count] or self._turns(row):
                break
        return count

    def _turns(self, row: _Row) -> bool:
        """Whether something else than the next token comes now: an end, a forced id, a branch."""
        parting = row.branch == 0 and any(one.window == len(row.ids) for one in self.tracks[row.index].waiting.values())
        ends = row.ended or row.policy.finished(row.ids)
        return parting or ends or ask(row.policy, row.ids, row.put).force is not None

    def feed(self, ids: list[int]) -> torch.Tensor:
        """Feed one id to every slot. Returns the logits (slots or some more, vocabulary) of the next."""
        if self.memory:
            self.memory.open(list(range(len(self.rows))), [1] * len(self.rows))
        positions, mask = self.cache.open_all()
        ids = torch.tensor(ids + [0] * (len(positions) - len(ids)), device=self.device)[:, None]
        return self._run(self.model, ids, mask, positions).logits[:, -1]

    def read(self, slots: list[int], ids: list[list[int]], model=None, **options):
        """Feed these slots, each its ids. Returns what the model gives, by default the one without logits."""
        counts = [len(own) for own in ids]
        if self.memory:
            self.memory.open(slots, counts)
        filled = [own + [0] * (max(counts) - len(own)) for own in ids]
        positions, mask = self.cache.open(slots, counts)
        filled = torch.tensor(filled, device=self.device)
        return self._run(model or self.model.base_model, filled, mask, positions, **options)

    def _fill(self) -> None:
        """Feed every row the ids its cache lacks, but the last, a few rows of about equally many at a time."""
        filled = self.cache.lengths
        lacking = {
            slot: (row.request.prompt_ids + row.ids)[filled[slot] : -1]
            for slot, row in enumerate(self.rows)
            if len(row.request.prompt_ids) + len(row.ids) - filled[slot] > 1
        }
        for slots in _groups(lacking, filled):
            self.read(slots, [lacking[slot] for slot in slots])
            for slot in slots:
                self.rows[slot].prefilled += len(lacking[slot])

    def _settle(self) -> None:
        going = [self._advance(row) for row in self.rows]
        kept = [slot for slot, rows in enumerate(going) for _ in rows]
        rows = [row for group in going for row in group]
        if kept != list(range(len(self.rows))):
            place = self.cache.arrange(kept)
            rows = [rows[i] for i in place]
            if self.memory:
                self.memory.arrange([kept[i] for i in place])
        self.rows = rows

    def _advance(self, row: _Row) -> list[_Row]:
        """The rows that go on from this one: itself unless it is finished, and the branches that leave it here."""
        track = self.tracks[row.index]
        parted = track.part(row.ids, row.put, row.ended) if row.branch == 0 else []
        going = [_Row(row.index, branch, policy, row.request, *written) for branch, policy, *written in parted]
        if row.ended or row.policy.finished(row.ids):
            track.done[row.branch] = row.finish()
            self.moved.add(row.index)
            return going
        extend_forced(row.policy, row.ids, row.put)
        return [row, *going]

    def _price(self, length: int) -> tuple[int, int]:
        if not self.memory:
            return length, 0
        return self.memory.asked.price(length, self.model.config.get_text_config().num_hidden_layers)

    def _run(self, model, ids, mask, positions, **options):
        fed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": self.cache}
        output = model(**fed, use_cache=True, **options, **({"memory": self.memory} if self.memory else {}))
        self.cache.close()
        if self.memory:
            self.memory.close()
        return output


def _ask(row: _Row, logits: torch.Tensor) -> Step:
    """What the policy says of a row's next token; of its logits, those that may not come are taken out."""
    step = ask(row.policy, row.ids, row.put)
    if step.forbid:
        logits[list(step.forbid)] = float("-inf")
    return step


def _groups(lacking: dict[int, list[int]], filled: list[int]) -> list[list[int]]:
    """The slots that lack ids, in groups to be fed together (`_pack`), those with nothing behind them apart."""
    groups: list[list[int]] = []
    for behind in (False, True):
        slots = sorted((slot for slot in lacking if (filled[slot] > 0) == behind), key=lambda slot: filled[slot])
        groups += [[slots[i] for i in part] for part in _pack([len(lacking[slot]) for slot in slots], TOKENS)]
    return groups


def _pack(lengths: list[int], most: int) -> list[list[int]]:
    """The rows by rising length, in groups to be fed together: filled up, a group has at most so many tokens."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups and (len(groups[-1]) + 1) * lengths[index] <= most:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _likeliest(logits: torch.Tensor) -> list[int]:
    """The first id with the largest logit, row by row.

    The largest of each piece of the vocabulary first: plain argmax looks at one number at a time on a CPU.
    """
    rows, size = logits.shape
    pieces = next(count for count in range(round(size**0.5), 0, -1) if size % count == 0)
    pieced = logits.view(rows, pieces, -1)
    piece = pieced.amax(dim=-1).argmax(dim=-1)
    within = pieced[torch.arange(rows, device=logits.device), piece].argmax(dim=-1)
    return (piece * pieced.shape[2] + within).tolist()


def sample_token(logits: torch.Tensor, request: Request, position: int) -> int:
    """A token drawn by temperature and nucleus (top-p) sampling with noise of its own (`derive_seed`).

    Adding Gumbel noise to log-probabilities and taking the largest resamples from the distribution exactly.
    """
    logits = logits.float().cpu() / request.temperature
    if request.top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(descending=True)
        outside = ordered.cumsum(dim=-1) - ordered >= request.top_p
        logits[order[outside]] = float("-inf")
    generator = torch.Generator().manual_seed(derive_seed(request, position))
    noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=generator, dtype=torch.float64)))
    return int((logits.double() + noise).argmax())
