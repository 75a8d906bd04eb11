"""The card of a trained model (what it was made from, how, by which versions, with hashes), and its way to the Hub."""

import hashlib
import json
from pathlib import Path

from huggingface_hub import HfApi, ModelCardData

from z1lib.models import fingerprint
from z1lib.profile import Profile
from z1lib.provenance import commit, environment
from z1lib.records import Trajectory

NOT_LEARNED = {"runs", "seeds", "save_steps", "keep_checkpoints", "tokens_per_second", "push_to_hub"}


def write_card(name: str, rows: list[Trajectory], base: Path, profile: Profile, precision: str, training: dict) -> str:
    """The card in Markdown with the Hub's metadata on top; every number comes from the arguments.

    `precision` is what the profile's `mixed_precision` came to on this hardware.
    """
    metadata = ModelCardData(library_name="transformers", base_model=profile.model.base, tags=["sft", "trl", "z1"])
    losses = [row["loss"] for row in training["log"] if "loss" in row]
    data = hashlib.sha256(json.dumps([vars(row) for row in rows], sort_keys=True).encode()).hexdigest()[:16]
    where = environment()
    lines = [f"---\n{metadata.to_yaml()}\n---\n# {name}\n"]
    lines += [f"`{profile.model.base}` fine-tuned by profile `{profile.name}` of a study of Z1 (arXiv 2504.00810).\n"]
    if profile.is_meaningless:
        lines += ["**Smoke run: the weights are random and mean nothing.**\n"]
    sources = ", ".join(sorted({row.source for row in rows}))
    lines += ["## Data\n", f"{len(rows):,} examples, {sum(row.token_count for row in rows):,} response tokens, from "]
    lines[-1] += f"{sources}; sha256 of the rows `{data}`. The loss counts the response and its end token.\n"
    asked = {"seed": profile.seed, "gpus": profile.hardware.gpus, "system_prompt": profile.model.system_prompt}
    recipe = asked | profile.sft.model_dump(exclude=NOT_LEARNED) | {"mixed_precision": precision}
    lines += ["## Recipe\n", *(f"* {key}: `{value!r}`" for key, value in recipe.items())]
    lines += ["* cosine decay, AdamW without weight decay\n"]
    lines += [f"{len(losses)} steps, the loss went from {losses[0]:.3f} to {losses[-1]:.3f}.\n"]
    lines += ["## Provenance\n", f"* code: commit `{commit()}`; recipe and data: `{training['recipe']}`"]
    lines += [f"* weights it started from: `{fingerprint(base)}`, revision `{profile.model.revision}`"]
    lines += [f"* hardware: {where['hardware']}", f"* versions: {where['versions']}\n"]
    return "\n".join(lines)


def push_to_hub(model: Path, profile: Profile) -> str | None:
    """Push a trained model to the Hub as `<sft.push_to_hub>-<run>`, private; None where the profile says null."""
    if profile.sft.push_to_hub is None:
        return None
    api, repository = HfApi(), f"{profile.sft.push_to_hub}-{model.name}"
    api.create_repo(repository, private=True, exist_ok=True)
    return str(api.upload_folder(repo_id=repository, folder_path=model))
