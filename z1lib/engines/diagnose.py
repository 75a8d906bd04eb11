"""How well is chosen what a new token attends to? Stored completions are read once, all selections side by side.

Teacher-forced: every selection sees the same queries and keys, those of dense attention, so that what differs is the
choice alone (`sparse`). Along a trace that was decoded with a budget errors would add up; that is what accuracy shows.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from z1lib.engines.sparse import Memory, Sparse, choose, rate
from z1lib.progress import bar
from z1lib.records import Completion

WATCHED = "watched"
COLUMNS = ["layer", "head", "select", "budget", "tokens", "recall", "chance", "mass", "most", "overlap"]
_seen: list[tuple[torch.Tensor, torch.Tensor, float]] = []  # queries, keys and scaling of the layers of one pass


def _watch(module, query, key, value, attention_mask, **options):
    _seen.append((query[0].float(), key[0].float(), options["scaling"]))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


AttentionInterface.register(WATCHED, _watch)


AttentionMaskInterface.register(WATCHED, sdpa_mask)


@torch.inference_mode()
def diagnose(
    engine,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    budgets: Sequence[int],
    selects,
    **options,
) -> pd.DataFrame:
    """By layer, key head, selection and budget, over the tokens of completions behind their prompts (ids).

    `recall`: of the positions that the present query wants most, beside those that are always in, the share that is
    chosen; `chance`: what as many drawn at random would find. `mass`: attention that the chosen ones have in the dense
    model, mean of the query heads; `most`: what the best choice has. `overlap`: of this token's best choice, the share
    in that of the token before. Only tokens with more positions than the budget count; `options` are `Sparse`'s.
    """
    implementation, rows = engine.model.config._attn_implementation, []
    engine.model.set_attn_implementation(WATCHED)
    try:
        for prompt, completion in bar(list(zip(prompts, completions, strict=True)), desc="diagnosed", leave=False):
            _seen.clear()
            ids = torch.tensor([[*prompt, *completion.token_ids]], device=engine.device)
            engine.model.base_model(input_ids=ids, use_cache=False)
            for layer, (query, key, scaling) in enumerate(_seen):
                for budget in budgets:
                    asked = [Sparse(budget, select, **options) for select in selects]
                    rows += look(layer, query, key, scaling, len(prompt), asked)
    finally:
        _seen.clear()
        engine.model.set_attn_implementation(implementation)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    weighted = frame[COLUMNS[5:]].mul(frame.tokens, axis=0).assign(tokens=frame.tokens)
    sums = weighted.groupby([frame[name] for name in COLUMNS[:4]], sort=False).sum()
    return sums.div(sums.tokens, axis=0).assign(tokens=sums.tokens).reset_index()[COLUMNS]


def look(layer: int, query: torch.Tensor, key: torch.Tensor, scaling: float, first: int, asked: list[Sparse]) -> list:
    """The rows of one layer of one completion: query (heads, tokens, size), key (key heads, tokens, size)."""
    budget, fixed = asked[0].budget, asked[0].sinks + asked[0].recent + 1
    start = max(first, budget, 2)  # a token has so many before it
    if start >= query.shape[1]:
        return []
    places = torch.arange(start, query.shape[1], device=query.device)
    visible = torch.arange(key.shape[1], device=key.device) <= places[:, None]
    present, keys = query[:, places].transpose(0, 1), key.mT.expand(len(places), *key.mT.shape)
    best = mark(*choose(Memory(replace(asked[0], select="now")), layer, present, keys, visible, scaling), visible)
    before = mark_before(asked[0], layer, query, keys, places, visible, scaling)
    group = query.shape[0] // key.shape[0]
    dense = rate(present, keys, visible, scaling) / group
    every = torch.arange(key.shape[1], device=key.device)
    free = visible & (every >= asked[0].sinks) & (every < places[:, None] - asked[0].recent)
    wanted = (best & free[:, None]).sum(-1).clamp_min(1)
    overlap = ((before & best & free[:, None]).sum(-1) / wanted).mean(0).tolist()
    chance, most = float(((budget - fixed) / free.sum(-1)).mean()), (dense * best).sum(-1).mean(0).tolist()
    rows = []
    for one in asked:
        chosen = mark(*choose(remember(one, layer, query, places), layer, present, keys, visible, scaling), visible)
        recall = ((chosen & best & free[:, None]).sum(-1) / wanted).mean(0).tolist()
        mass = (dense * chosen).sum(-1).mean(0).tolist()
        for head, each in enumerate(zip(recall, mass, most, overlap)):
            shares = each[0], chance, *each[1:]
            rows.append((layer, head, one.select, budget, len(places), *shares))
    return rows


def mark(chosen: torch.Tensor, there: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Chosen positions (tokens, key heads, budget) as true and false (tokens, key heads, positions)."""
    marks = torch.zeros(*chosen.shape[:2], visible.shape[-1], dtype=torch.bool, device=chosen.device)
    return marks.scatter(-1, chosen, there)


def remember(asked: Sparse, layer: int, query: torch.Tensor, places: torch.Tensor) -> Memory:
    """The memory that each of these tokens would have had: the queries of those before it."""
    steps = places[:, None] - torch.arange(asked.history, 0, -1, device=places.device)
    history = query.transpose(0, 1)[steps.clamp_min(0)]
    return Memory(asked, {layer: history}, seen=places.tolist())


def mark_before(asked: Sparse, layer: int, query, keys, places, visible, scaling: float) -> torch.Tensor:
    """The best choice of the token before each, among what that one saw."""
    earlier = query[:, places - 1].transpose(0, 1)
    seen = visible & (torch.arange(visible.shape[-1], device=visible.device) < places[:, None])
    return mark(*choose(Memory(replace(asked, select="now")), layer, earlier, keys, seen, scaling), visible)
