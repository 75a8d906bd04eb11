"""Cost: what an answer took, by whomever: engines price each completion, the sandbox each run, rules add them up."""

from dataclasses import dataclass, replace

from z1lib.records import Shape

# Operations that a card does while it reads a byte: 989 TFLOP/s in bfloat16 over 3.35 TB/s (NVIDIA H100 SXM).
INTENSITY = 295
# US dollars for a million tokens read, and written: GPT-4o mini, which DiffCodeGen draws from (OpenAI, July 2024).
PRICES = (0.15, 0.60)


@dataclass(frozen=True)
class Cost:
    """What was spent; None where it is not known, which a sum keeps apart from nothing.

    In tokens: `prefilled` were fed in chunks (prompts, hints), `decoded` came one at a time; `depth` is how many came
    one after the other. In cache positions: `attended` were read to choose the decoded tokens, `scored` to choose which
    to read. `programs` ran in the sandbox, for `program_s` seconds of wall time. Of `drafted` tokens, guessed and
    checked in the pass of a decoded one, the `accepted` are among the decoded and make the answer less deep.
    """

    prefilled: int | None = 0
    decoded: int | None = 0
    attended: int | None = 0
    scored: int | None = 0
    programs: int | None = 0
    program_s: float | None = 0.0
    depth: int | None = 0
    drafted: int | None = 0
    accepted: int | None = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Both, one after the other."""
        pairs = zip(vars(self).values(), vars(other).values())
        return Cost(*(None if a is None or b is None else a + b for a, b in pairs))

    def beside(self, other: "Cost") -> "Cost":
        """Both, at the same time: as deep as the deeper one."""
        depths = (self.depth, other.depth)
        return replace(self + other, depth=None if None in depths else max(depths))


def count_eflops(cost: Cost, shape: Shape, intensity: float = INTENSITY) -> float | None:
    """What a model of this shape computes, and what it could have computed while it read its cache.

    Operations plus bytes moved times `intensity` (Kinetics, arXiv 2506.05333), with two bytes an element. The weights'
    own traffic is left out, as in a large batch; a key that is only scored is half of a position. Samples are counted
    one by one: drawn side by side they would read their prompt's keys once. None where the cost is not known.
    """
    if None in (cost.prefilled, cost.decoded, cost.attended, cost.scored):
        return None
    read = cost.attended + cost.scored / 2
    fed = cost.prefilled + cost.decoded
    return 2 * shape.parameters * fed + 2 * shape.cache_elements * read * (shape.group + intensity)


def count_money(cost: Cost, prices: tuple[float, float] = PRICES) -> float | None:
    """US dollars for a thousand such answers, at prices for a million tokens read and written."""
    if None in (cost.prefilled, cost.decoded):
        return None
    return (prices[0] * cost.prefilled + prices[1] * cost.decoded) / 1000
