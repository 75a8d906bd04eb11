"""A finished data set: one parquet file with the released columns and ours, and a card with every number and filter.

`python -m z1lib.curation.release runs/<profile> --push-to-hub <owner>/<name>` uploads both. Nothing else here writes
outside the machine.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from huggingface_hub import HfApi

from z1lib.curation.gather import tellings
from z1lib.curation.pipeline import Curated, Row
from z1lib.curation.statistics import complexity, describe, length_bin
from z1lib.files import written_whole
from z1lib.profile import Profile
from z1lib.provenance import commit
from z1lib.records import Trajectory

PARQUET, CARD = "sft.parquet", "DATASET_CARD.md"


def make_table(chosen: list[Trajectory], rows: dict[str, list[Row]], told: dict[str, str]) -> pd.DataFrame:
    """The chosen examples with the released columns (id, question, response, token_num_qwen) and ours.

    `rows` are the curated rows of every telling, `told` says which is a run's (`gather.tellings`). `token_num_qwen` is
    the source's own count, missing where it had none; `tokens` is ours, with the end token and the tokenizer of the
    model to be trained.
    """
    found = {(run, row.id): row for run, curated in rows.items() for row in curated}
    table = [_to_columns(found[told[example.run], example.id], example.run) for example in chosen]
    return pd.DataFrame(table).astype({"token_num_qwen": "Int64", "truncated": "boolean"})


def _to_columns(row: Row, run: str) -> dict:
    return {
        "id": row.id,
        "question": row.question,
        "response": row.response,
        "token_num_qwen": row.token_num_qwen,
        "tokens": row.tokens,
        "length_bin": length_bin(row.tokens),
        "complexity": complexity(row.question),
        "level": row.level,
        "truncated": row.truncated,
        "overlap": row.overlap,
        "source": row.source,
        "unlearned": row.unlearned,
        "run": run,
    }


def write_release(
    folder: Path, profile: Profile, chosen: list[Trajectory], curated: dict[str, Curated]
) -> pd.DataFrame:
    """Write the chosen examples and their card into a run's folder, each whole or absent; returns the table."""
    table = make_table(chosen, {run: result.rows for run, result in curated.items()}, tellings(profile))
    with written_whole(folder / PARQUET) as unfinished:
        table.to_parquet(unfinished, index=False)
    with written_whole(folder / CARD) as unfinished:
        unfinished.write_text(make_card(profile, chosen, curated), encoding="utf-8")
    return table


def make_card(profile: Profile, chosen: list[Trajectory], curated: dict[str, Curated]) -> str:
    """The data set's card: where the rows come from, every filter with its thresholds and counts, the lengths.

    The licence stays "unknown": the paper's data set states none.
    """
    parts = [
        f"---\nlicense: unknown\ntask_categories: [text-generation]\nconfigs:\n- config_name: default\n"
        f"  data_files: {PARQUET}\n---\n\n# Reasoning trajectories, profile `{profile.name}`\n",
        f"{len(chosen)} examples from `{profile.curation.train_source}` for the runs {', '.join(profile.sft.runs)}; "
        f"made at commit {commit()}, seed {profile.seed}, by the method of [Z1](https://arxiv.org/abs/2504.00810). "
        f"Lengths are in tokens of `{profile.model.base}`, the end token included.\n",
        _say_selection(profile),
        "## Lengths\n",
        describe(chosen).round(1).to_markdown(index=False),
        "\n## Filters, in their order\n",
        _list_thresholds(profile),
    ]
    for run, result in curated.items():
        parts += [f"\n### `{run}`\n", result.counts().to_markdown(index=False, floatfmt=".4f")]
        if len(result.overlaps()):
            parts += ["\nOverlap with the evaluation sets:\n", result.overlaps().to_markdown(index=False)]
    parts += ["\n## Columns\n", COLUMNS]
    return "\n".join(parts) + "\n"


def _say_selection(profile: Profile) -> str:
    first, *others = profile.sft.runs
    text = f"rows at random while those of `{first}` fit {profile.curation.response_token_budget:,} tokens"
    if others:
        text += f"; {', '.join(others)}: the same questions"
    narrower = {name: run for name, run in profile.sft.runs.items() if run.within_levels or run.tokens}
    for name, run in narrower.items():
        what = "half of every level" if run.within_levels else f"at most {run.tokens:,} tokens"
        text += f"; of these `{name}` has {what}, {run.order}"
    if "taught" in {run.style for run in profile.sft.runs.values()}:
        sampling = profile.curation.teacher.model_dump(include={"model", "max_tokens", "temperature", "top_p"})
        text += f". Teacher: {sampling}; what it refused or was cut is in `rejected.jsonl` and the column `truncated`"
    return f"Selection: {text}.\n"


COLUMNS = """* `id`, `question`, `response`, `token_num_qwen`: as released; the last is the source's own count, if any.
* `tokens`: of the response, the end token included. `length_bin`: the power of two at or below it.
* `complexity`: bytes of the compressed question. `level`: the label of a generated problem, 0 where there is none.
* `truncated`: whether the teacher's limit cut the response, empty where nobody says.
* `overlap`: evaluation set and kind of an overlap that was reported and not dropped.
* `source`, `run`: where the question is from, and the model the row is for.
* `unlearned`: a line of the response, at its first place, that the loss leaves out: a slip that the rest repairs."""


def _list_thresholds(profile: Profile) -> str:
    repetition = ", ".join(f"{key} {value}" for key, value in profile.curation.repetition)
    near = ", ".join(f"{key} {value}" for key, value in profile.curation.near_duplicates)
    dropped = " and ".join(profile.curation.drop_overlap) or "nothing"
    lengths = f"{profile.curation.min_response_tokens} to {profile.curation.max_response_tokens}"
    return (
        "1. `readable`: columns there, of their type and not empty; UTF-8; no id twice; no row above half a megabyte\n"
        f"2. `length`: {lengths} tokens, and the row's own count agrees\n"
        f"3. `repetition`: {repetition}\n"
        "4. `correctness`: the boxed answer, where the row has a reference it can be compared with\n"
        f"5. `near_duplicates`: MinHash of the question, {near}\n"
        f"6. `overlap`: {profile.curation.overlap_words} words in a row or the whole question; dropped: {dropped}"
    )


def push(folder: Path, repository: str) -> str:
    """Upload a run's parquet file and card to a data set on the Hub; returns its address. Raises the Hub's errors."""
    api = HfApi()
    api.create_repo(repository, repo_type="dataset", exist_ok=True)
    for name, there in ((PARQUET, PARQUET), (CARD, "README.md")):
        api.upload_file(path_or_fileobj=folder / name, path_in_repo=there, repo_id=repository, repo_type="dataset")
    return f"https://huggingface.co/datasets/{repository}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Show a curated data set's card, or upload it with the data.")
    parser.add_argument("folder", type=Path, help="runs/<profile>")
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload; without it nothing leaves this machine")
    given = parser.parse_args(arguments)
    missing = [name for name in (PARQUET, CARD) if not (given.folder / name).exists()]
    if missing:
        print(f"{given.folder} has no {' and no '.join(missing)}: notebook 01_curation makes them")
        return 2
    if not given.push_to_hub:
        print((given.folder / CARD).read_text(encoding="utf-8"))
        return 0
    print(push(given.folder, given.push_to_hub))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
