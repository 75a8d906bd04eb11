"""`make publish`: a run's results into `figures/<profile>/`, and every generated text of the repository, from there.

A run's artifacts are put beside what is committed of other seeds; tables and pictures are then those of notebook 04 on
all of it. Where there is no run, only this is made anew. `RESULTS.md` holds what was found, tables first; the README
one figure and one table.
"""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd

import z1lib
from z1lib.analysis import claims, estimands, findings, tables
from z1lib.files import read_jsonl
from z1lib.pages import artifacts, terminal
from z1lib.profile import load_profile
from z1lib.provenance import hash_code, read_notebook
from z1lib.records import ARTIFACTS, MORE
from z1lib.study import NOTEBOOKS, STAGES

FIGURES = Path("figures")
TABLES = ("summary.csv", "claims.csv", "seeds.csv", "rules.csv")  # the last where there is a pool
HEADLINE = "mini"  # the profile whose figure and claims the README shows
PRINTED = ("printed_", "published_")  # pictures of what the paper printed: the same in every profile


def publish(run: Path, folder: Path) -> None:
    """Put a run's artifacts and provenance in the place of those of the same trainings; other seeds' stay.

    Raises SystemExit if the run is not finished, or its artifacts are too large for git; nothing is changed then.
    """
    needed = [f"{name}.jsonl" for name in ARTIFACTS] + ["summary.csv", "claims.csv", "provenance.json"]
    if lacking := [name for name in needed if not (run / name).exists()]:
        raise SystemExit(f"{run} lacks {', '.join(lacking)}: `make reproduce PROFILE={run.name}` finishes it")
    more = {name: cls for name, cls in MORE.items() if (run / f"{name}.jsonl").exists()}
    rows = {name: read_jsonl(run / f"{name}.jsonl", cls) for name, cls in (ARTIFACTS | more).items()}
    with tempfile.TemporaryDirectory() as packed:
        sizes = artifacts.pack(rows, Path(packed))
        if (most := max(sizes.values())) > artifacts.MAX_BYTES:
            most_allowed = f"more than the {artifacts.MAX_BYTES:,} that git should carry"
            raise SystemExit(f"{run}: {most:,} bytes of artifacts of one training seed, {most_allowed}")
        before = (
            json.loads((folder / "provenance.json").read_text()) if artifacts.keep_seeds(folder, Path(packed)) else {}
        )
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(packed, folder / "artifacts")
    for file in [*pictures_of(run), *(run / name for name in TABLES if (run / name).exists())]:
        shutil.copy(file, folder)  # those that 04 makes are drawn anew of all seeds (`redraw`)
    notes = json.loads((run / "provenance.json").read_text())
    seeds = sorted(seed for seed in sizes if seed)
    made = {name: notes["stages"][name] for name in ("02_sft", "03_windowed_inference") if seeds}
    parts = before.get("parts", {}) | {seed.removeprefix("-"): made for seed in seeds}
    write_notes(folder, notes | ({"parts": parts} if parts else {}))
    print(f"{folder}: {sum(sizes.values()):,} bytes of artifacts")


def redraw(folder: Path) -> None:
    """Notebook 04 anew on all that is committed of a profile, and 05 where there is a pool; before, grades of today's.

    So what is published follows from the artifacts beside it, whichever runs they came from.
    """
    notes = json.loads((folder / "provenance.json").read_text())
    if regraded := artifacts.regrade(folder):
        notes["regraded"] = regraded
        write_notes(folder, notes)
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=".") as runs:
        made = Path(runs) / folder.name
        artifacts.unpack(folder, made)
        for stage in ("04_analysis", *["05_selection"] * (made / "samples.jsonl").exists()):
            terminal.run_stage(stage, load_profile(folder.name), Path(runs))
        for file in [*pictures_of(made), *(made / name for name in (*TABLES, "provenance.json"))]:
            if file.exists():
                shutil.copy(file, folder)


def write_notes(folder: Path, notes: dict) -> None:
    (folder / "provenance.json").write_text(json.dumps(notes, indent=1))


def pictures_of(run: Path) -> list[Path]:
    found = (run / "figures").glob("*.png")
    return [file for file in found if not file.name.startswith(PRINTED) or run.name == HEADLINE]


def write_texts(figures: Path = FIGURES) -> None:
    """Make every generated text anew from what is committed: RESULTS.md of each profile, README and others."""
    for folder in sorted(file.parent for file in figures.glob("*/provenance.json")):
        (folder / "RESULTS.md").write_text(write_results(folder), encoding="utf-8")
    plan = f"```\n{z1lib.__doc__}```\n"
    fill(Path("README.md"), "results", write_headline(figures / HEADLINE))
    fill(Path("CONTRIBUTING.md"), "plan", plan)
    fill(Path("docs/CLAIMS.md"), "plan", write_plan())


def fill(file: Path, name: str, text: str) -> None:
    """Put `text` between the marks of a generated block. Raises ValueError if the file has no such block."""
    block = re.compile(rf"(<!-- {name}: generated -->\n).*?(<!-- end of {name} -->)", re.S)
    found, count = block.subn(lambda match: match[1] + text + match[2], file.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{file} has {count} blocks named {name!r}, there should be one")
    file.write_text(found, encoding="utf-8")


def write_headline(folder: Path) -> str:
    """The README's results: one figure, three findings, one table of claims."""
    notes = json.loads((folder / "provenance.json").read_text())
    summary = pd.read_csv(folder / "summary.csv", dtype={"level": str})
    claims_of_all = show_claims(gather_claims(folder.parent), ("profile",))
    return (
        f"![accuracy against all tokens]({(folder / 'accuracy_by_total.png').as_posix()})\n\n"
        f"{say_plainly(summary)}\n\n{claims_of_all}\n\n{say_provenance(notes)}\n"
    )


def gather_claims(figures: Path) -> pd.DataFrame:
    """Every claim as the profile that is to decide it has it; where that is not published, as the headline's has it."""
    rows = []
    for claim in estimands.read_plan():
        profile = claim.profile if (figures / claim.profile / "claims.csv").exists() else HEADLINE
        table = pd.read_csv(figures / profile / "claims.csv")
        rows.append(table[table.claim.str.startswith(f"{claim.id}: ")].assign(profile=f"`{profile}`"))
    return pd.concat(rows, ignore_index=True)


def say_plainly(summary: pd.DataFrame) -> str:
    """Three findings of `mini` in plain words: what the window buys, what the hint, what telling everything twice."""
    whole = summary[summary.level == "all"].set_index(["model", "policy", "problem_set", "window"]).sort_index()

    def right(*row) -> str:
        return f"{whole.loc[row].accuracy:.0%}"

    window = [right("z1", "shifted_window", "tracing", width) for width in (64, 256)]
    kinds = ("truncation", "shifted_window", "truncation_matched")
    cut, hinted, matched = (right("z1", kind, "running_best", 32) for kind in kinds)
    [z1, r1] = (whole.loc[model, "unbounded", "tracing"].iloc[0] for model in ("z1", "r1"))
    return (
        f"* **What the window buys.** Held to 64 tokens, `z1` traces {window[0]} of the programs rightly, with 256 "
        f"{window[1]}.\n"
        f"* **What the hint buys.** Of traces of running best cut at 32 tokens {cut} are right without a hint and "
        f"{hinted} with it; cut at as many tokens *in all*, {matched}.\n"
        f"* **What telling everything twice buys.** Left alone on `tracing`, `r1` writes "
        f"{r1.total_tokens / z1.total_tokens:.1f} times the tokens of `z1` and is right on {r1.accuracy:.0%}, `z1` on "
        f"{z1.accuracy:.0%}."
    )


def write_results(folder: Path) -> str:
    """RESULTS.md of a profile: claims, tables, then sentences, every number from the committed files."""
    notes = json.loads((folder / "provenance.json").read_text())
    parts = [f"# Results of profile `{notes['profile']}`", say_provenance(notes), say_code(notes)]
    parts += [
        *say_parts(notes),
        *say_regraded(notes),
        "## Claims",
        show_claims(pd.read_csv(folder / "claims.csv")),
        *(f"![{file.stem}]({file.name})" for file in headline_figures(folder)),
    ]
    summary = pd.read_csv(folder / "summary.csv", dtype={"level": str})
    frame = artifacts.read_frame(folder)
    for name in tables.main_sets(frame):
        parts += [f"## Accuracy by window, `{name}`", show_accuracy(summary, name)]
    parts += ["## In words", *say_findings(frame, notes["profile"])]
    return "\n\n".join(parts) + "\n"


def headline_figures(folder: Path) -> list[Path]:
    names = ("accuracy_by_total", "accuracy_by_run")
    return [folder / f"{name}.png" for name in names if (folder / f"{name}.png").exists()]


def write_plan() -> str:
    """The plan of claims as Markdown tables: what is estimated, then how it is decided."""
    plan = pd.DataFrame([vars(claim) for claim in estimands.read_plan()])
    plan["windows"] = plan.windows.str.replace(" ", " to ")
    plan["contrast"] = [" - ".join(f"{run}, {policy}" for run, policy in one.pairs) for one in estimands.read_plan()]
    what = plan[["id", "claim", "estimand"]]
    how = plan[["id", "profile", "problem_sets", "n", "seeds", "contrast", "windows", "supported", "refuted"]]
    how = how.assign(corrected=plan.family.map(lambda family: f"Holm, {family}" if family else ""), needs=plan.needs)
    return "\n\n".join(table.to_markdown(index=False) for table in (what, how)) + "\n"


def show_claims(table: pd.DataFrame, columns: tuple[str, ...] = ("estimand", "test")) -> str:
    """A table of claims as Markdown, the estimate with its interval; with these columns beside the others."""
    table = table.copy()
    table["estimate, 95% interval"] = [
        f"{row.estimate:.2f} [{row.low:.2f}, {row.high:.2f}]" if pd.notna(row.estimate) else ""
        for row in table.itertuples()
    ]
    table["n, seeds"] = [f"{row.n}, {row.seeds}" for row in table.itertuples()]
    shown = ["claim", "verdict", "estimate, 95% interval", "n, seeds", "problem_set", *columns]
    return table[shown].to_markdown(index=False)


def show_accuracy(summary: pd.DataFrame, problem_set: str) -> str:
    """Accuracy with its interval by policy and window, on a whole set."""
    rows = summary[(summary.level == "all") & (summary.problem_set == problem_set)]
    shown = [f"{row.accuracy:.2f} [{row.accuracy_low:.2f}, {row.accuracy_high:.2f}]" for row in rows.itertuples()]
    wide = rows.assign(shown=shown).pivot(index=["model", "policy", "n"], columns="window", values="shown").fillna("")
    return wide.reset_index().to_markdown(index=False)


def say_findings(frame: pd.DataFrame, name: str) -> list[str]:
    """The sentences that need every completion."""
    profile = load_profile(name)
    resamples, seed = profile.analysis.resamples, profile.seed
    frame, subject = tables.pool_trainings(frame), claims.subject_of(profile)
    main = frame[frame.problem_set == tables.main_sets(frame)[0]]
    return [
        findings.say_levels(frame, subject[0], resamples, seed),
        findings.say_overthinking(main, [subject, *claims.rivals_of(profile, frame)], resamples, seed),
        findings.say_before(main, subject[0]),
    ]


def say_provenance(notes: dict) -> str:
    stages = notes["stages"]
    times = ", ".join(f"{name} {stage['seconds'] / 60:.1f} min" for name, stage in stages.items())
    peak = max(stage["peak_memory_gib"] for stage in stages.values())
    last = stages["03_windowed_inference"]
    hardware = f"{last['hardware']['processor']}, {last['hardware']['cores']} cores"
    return (
        f"Profile `{notes['profile']}`, commit `{last['commit']}`, seed {notes['seed']}, {hardware}: {times}; peak "
        f"memory {peak:.1f} GiB. Intervals are 95%, over problems unless the test says otherwise: those of the models "
        "as trained. Another training of the same recipe gives other models: see `docs/TRIALS.md`."
    )


def say_parts(notes: dict) -> list[str]:
    """Of trainings with a seed: when and where each was made."""
    if "parts" not in notes:
        return []
    rows = [
        {"seed": seed, "commit": stages["03_windowed_inference"]["commit"]}
        | {"03": f"{stages['03_windowed_inference']['seconds'] / 60:.0f} min"}
        | {"on": stages["02_sft"]["hardware"]["processor"]}
        for seed, stages in sorted(notes["parts"].items(), key=lambda part: int(part[0]))
    ]
    return [pd.DataFrame(rows).to_markdown(index=False)]


def say_regraded(notes: dict) -> list[str]:
    if not (of := notes.get("regraded")):
        return []
    return [
        f"Graded anew by version {of['version']} of the graders (version {of['before']} before): {of['moved']:,} of "
        f"{of['verdicts']:,} verdicts moved."
    ]


def say_code(notes: dict) -> str:
    """Whether the code that made each stage is still today's; what was made before it was hashed is not."""
    made = {name: stage.get("code") for name, stage in notes["stages"].items()}
    other = [
        name for name in STAGES if name in made and made[name] != hash_code(read_notebook(NOTEBOOKS / f"{name}.ipynb"))
    ]
    if not other:
        return "**Made by the code that is here today.**"
    return f"**Made by other code than today's:** that of {', '.join(other)} has changed since."


def main(run: Path, folder: Path) -> None:
    if run.exists():
        publish(run, folder)
    redraw(folder)
    write_texts()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
