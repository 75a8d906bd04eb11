"""`make verify`: do the committed results follow from the committed completions, and does a fresh run agree with them?

What must repeat repeats exactly: grades, summary, claims and the text of RESULTS.md from the committed completions,
anywhere; and the whole summary of a fresh run by the same code on the same kind of processor with as many cores.

Elsewhere a model that was trained anew is another draw of its recipe: with other vector instructions, or another order
of additions, the same data give other weights. Its accuracy on a whole set is held against the spread over trainings
and the sampling error of the two cells, together at 98%: a cell of two problems is no alarm. A model that was not
trained is held to the sampling error alone. Lengths and single levels vary more than is known; they are not held.
"""

import json
import sys
from pathlib import Path

import pandas as pd

from z1lib.analysis import claims, estimands, tables
from z1lib.grading import grade_all
from z1lib.pages.artifacts import GRADED, read_artifacts
from z1lib.pages.publish import write_results
from z1lib.profile import Profile, load_profile
from z1lib.records import ARTIFACTS

KEYS = ["model", "policy", "window", "problem_set", "level"]
NORMAL_98 = 2.326
# Standard deviation of the accuracy over three trainings of `mini`, without its binomial part (docs/TRIALS.md): r1
# varies so much that 30 points more or less are a draw of it.
SPREAD = {"r1": 0.16}
OTHERS = 0.07  # z1's


def check_committed(folder: Path) -> list[str]:
    """What does not follow from the committed completions, a line each."""
    written = folder / "RESULTS.md"
    stale = not written.exists() or write_results(folder) != written.read_text(encoding="utf-8")
    lines = [f"{written} is not what is written from the files beside it: `make publish`"] * stale
    return lines + (check_artifacts(folder) if (folder / "artifacts").is_dir() else [])


def check_artifacts(folder: Path) -> list[str]:
    """Grades and tables that do not follow from the committed completions, a line each."""
    read = read_artifacts(folder)
    for rows, grades in GRADED.items():
        if lines := check_grades(folder, read["problems"], read.get(rows, []), read.get(grades, [])):
            return lines
    profile = load_profile(folder.name)
    frame = tables.make_frame(*(read[name] for name in ARTIFACTS), profile)
    summary = tables.summarise(frame)
    measured = estimands.measure(frame, profile)
    tables_anew = {"summary.csv": summary, "claims.csv": claims.make_claims(measured)}
    if (folder / "seeds.csv").exists():  # not in what was published before trainings were compared
        tables_anew["seeds.csv"] = claims.list_seeds(measured)
    wrong = [name for name, table in tables_anew.items() if to_csv(table) != (folder / name).read_text()]
    return [f"{folder / name} does not follow from the committed completions" for name in wrong]


def check_grades(folder: Path, problems: list, completions: list, grades: list) -> list[str]:
    """Grades that do not follow from the completions, a line each."""
    anew = {(grade.problem_id, grade.key): grade for grade in grade_all(problems, completions)}
    moved = [grade for grade in grades if anew.get((grade.problem_id, grade.key)) != grade]
    if not moved and len(grades) == len(anew):
        return []
    lines = [f"{folder}: {len(moved)} of {len(grades)} grades do not repeat, {len(anew)} completions"]
    return lines + [f"{one.problem_id}: committed as {one.correct}, found by {one.rule}" for one in moved[:5]]


def to_csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.4f")


def compare(fresh: pd.DataFrame, committed: pd.DataFrame, profile: Profile, exactly: bool) -> list[str]:
    """A line for each row that is missing or new, and for each accuracy further off than two draws explain."""
    pair = [frame.astype({"level": str}).set_index(KEYS) for frame in (fresh, committed)]
    both = pair[1].merge(pair[0], how="outer", on=KEYS, suffixes=("_committed", "_fresh"))
    return [line for key, row in both.iterrows() if (line := _difference(key, row, profile, exactly))]


def _difference(key: tuple, row: pd.Series, profile: Profile, exactly: bool) -> str:
    model, policy, window, problem_set, level = key
    name = f"{model}, {policy} {window}, {problem_set}" + (f" level {level}" if level != "all" else "")
    if pd.isna(row.accuracy_fresh) or pd.isna(row.accuracy_committed):
        return f"{name}: only in the {'committed' if pd.isna(row.accuracy_fresh) else 'fresh'} summary"
    if row.n_fresh != row.n_committed:
        return f"{name}: {row.n_fresh:.0f} completions, committed {row.n_committed:.0f}"
    if exactly:
        other = [column for column in tables.SUMMARY if column not in KEYS and _moved(row, column)]
        return f"{name}: {', '.join(other)} should repeat exactly and does not" if other else ""
    if level != "all":
        return ""
    allowed, away = tolerance(row, model, profile), row.accuracy_fresh - row.accuracy_committed
    if abs(away) <= allowed:
        return ""
    return f"{name}: accuracy {row.accuracy_fresh:.2f}, committed {row.accuracy_committed:.2f}, allowed {allowed:.2f}"


def _moved(row: pd.Series, column: str) -> bool:
    return not abs(row[f"{column}_fresh"] - row[f"{column}_committed"]) <= 1e-4  # a missing number has moved too


def tolerance(row: pd.Series, model: str, profile: Profile) -> float:
    """How far two accuracies may lie apart at 98%: two draws of the training, if there is one, and of the problems."""
    trained = model != "base" and model not in profile.model.released
    spread = SPREAD.get(model, OTHERS) if trained else 0.0
    middle = (row.accuracy_fresh + row.accuracy_committed) / 2
    sampling = max(middle * (1 - middle), 1 / row.n_committed) / row.n_committed
    return NORMAL_98 * (2 * spread**2 + 2 * sampling) ** 0.5


def made_alike(fresh: dict, committed: dict) -> bool:
    """Whether two provenances name the same code, kind of processor, cores and versions for every stage they share."""

    def told(notes: dict) -> list:
        stages = notes["stages"]
        names = sorted(fresh["stages"].keys() & committed["stages"].keys() - {"04_analysis", "05_selection"})
        return [[stages[name].get(key) for key in ("code", "hardware", "versions")] for name in names]

    return told(fresh) == told(committed)


def main(run: Path, folder: Path) -> int:
    missing = [file for file in (run / "summary.csv", folder / "summary.csv") if not file.exists()]
    if missing:
        print(f"nothing to compare: {missing[0]} is missing; `make reproduce PROFILE={run.name}` makes a summary")
        return 2
    notes = [json.loads((place / "provenance.json").read_text()) for place in (run, folder)]
    fresh, committed = (pd.read_csv(place / "summary.csv") for place in (run, folder))
    exactly = made_alike(*notes)
    found = check_committed(folder) + compare(fresh, committed, load_profile(run.name), exactly)
    how = "exactly, by the same code on the same kind of machine" if exactly else "as another draw of the same recipe"
    print(*found, f"{folder} and {run} do not agree" if found else f"{run} agrees with {folder} {how}", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
