"""The same fine-tuning on one device or on several: here, or in the processes that `accelerate launch` starts.

`train` is what the notebook calls. For several machines it writes the job and says what to start on each of them.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from z1lib.files import read_jsonl, write_jsonl
from z1lib.profile import Profile
from z1lib.records import Trajectory
from z1lib.sft.footprint import count_steps
from z1lib.sft.progress import LOG, Live
from z1lib.sft.train import fine_tune, hash_recipe, read_finished

POLL_SECONDS = 1.0


class LaunchFailed(RuntimeError):
    """A process of the launch failed; the message names its log and quotes the end of it."""


class StartElsewhere(RuntimeError):
    """The job is for several machines; the message says what to start on each."""


def train(rows: list[Trajectory], base: Path, output: Path, profile: Profile) -> list[dict]:
    """`sft.fine_tune` on the profile's devices: in this process, or in one process a GPU where there are several.

    Raises LaunchFailed, and StartElsewhere where the profile names several machines and they have not trained it yet.
    """
    if profile.hardware.gpus <= 1:
        return fine_tune(rows, base, output, profile)
    recipe = hash_recipe(rows, base, profile)
    done = read_finished(output, recipe)
    if done is None and profile.hardware.machines > 1:
        raise StartElsewhere(
            f"start on each of the {profile.hardware.machines} machines, which must see this folder under the same "
            "path, `accelerate launch --config_file cluster.yaml -m z1lib.sft.launch "
            f"{write_job(rows, base, output, profile)}`; when they are done, run this cell again"
        )
    if done is None:
        log = output.with_name(f"{output.name}.checkpoints-{recipe}") / LOG
        live = Live(output.name, count_steps(len(rows), profile))
        run_job(write_job(rows, base, output, profile), profile.hardware.gpus, log, live)
        done = read_finished(output, recipe)
        live.close([row for row in done if "loss" in row])
    return done


def write_job(rows: list[Trajectory], base: Path, output: Path, profile: Profile) -> Path:
    """All that the processes need, in the folder `output`.job: the rows, the profile, where from and where to."""
    job = output.with_name(output.name + ".job")
    write_jsonl(job / "rows.jsonl", rows)
    values = {"base": str(Path(base).resolve()), "output": str(output.resolve()), "profile": profile.model_dump()}
    (job / "job.json").write_text(json.dumps(values, indent=1))
    return job


def run_job(job: Path, processes: int, log: Path, live: Live) -> None:
    """Start `accelerate launch` on this machine and show its training log until it ends. Raises LaunchFailed."""
    options = ["--num_processes", str(processes), "--num_machines", "1", "--multi_gpu", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "z1lib.sft.launch", str(job)]
    output = job / "output.log"
    with open(output, "w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                live.follow(log)
        finally:  # the notebook was interrupted: the run stops and goes on from its checkpoint the next time
            process.terminate()
    if process.returncode:
        end = "\n".join(output.read_text().splitlines()[-15:])
        raise LaunchFailed(f"{processes} processes ended with code {process.returncode}; log: {output}\n{end}")


@record  # so that the launcher's last words are the error of the process that failed first
def main(job: str) -> None:
    values = json.loads((Path(job) / "job.json").read_text())
    rows = read_jsonl(Path(job) / "rows.jsonl", Trajectory)
    fine_tune(rows, Path(values["base"]), Path(values["output"]), Profile.model_validate(values["profile"]))


if __name__ == "__main__":
    main(sys.argv[1])
