"""Cost: what an answer took, by whomever: engines price each completion, the sandbox each run, rules add them up."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Cost:
    """What was spent; None where it is not known, which a sum keeps apart from nothing.

    In tokens: `prefilled` were fed in chunks (prompts, hints), `decoded` came one at a time; `depth` is how many came
    one after the other. In cache positions: `attended` were read to choose the decoded tokens, `scored` to choose which
    to read. `programs` ran in the sandbox, for `program_s` seconds of wall time.
    """

    prefilled: int | None = 0
    decoded: int | None = 0
    attended: int | None = 0
    scored: int | None = 0
    programs: int | None = 0
    program_s: float | None = 0.0
    depth: int | None = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Both, one after the other."""
        pairs = zip(vars(self).values(), vars(other).values())
        return Cost(*(None if a is None or b is None else a + b for a, b in pairs))

    def beside(self, other: "Cost") -> "Cost":
        """Both, at the same time: as deep as the deeper one."""
        depths = (self.depth, other.depth)
        return replace(self + other, depth=None if None in depths else max(depths))
