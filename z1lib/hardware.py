"""What this machine has, what a profile wants, and which profile to take where it has less."""

from pathlib import Path

import psutil
import torch

from z1lib.profile import PROFILES, Profile, load_profile

CONTAINER_LIMITS = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]


class MissingHardware(RuntimeError):
    """The profile wants a GPU that is not here; the message says which, and which profile runs here."""


def check_hardware(profile: Profile) -> None:
    """Raises MissingHardware, in one line, unless this machine has the GPUs the profile wants."""
    has, wanted = _large_gpus(profile), profile.hardware.gpus // profile.hardware.machines
    if has < wanted:
        raise MissingHardware(
            f"profile {profile.name} wants {wanted} GPU(s) of {profile.hardware.gpu_memory_gib} GiB, this machine has "
            f"{has}; {say_smaller(profile)}"
        )


def say_smaller(profile: Profile) -> str:
    """Which profile to try where this one does not fit."""
    smaller = smaller_profile(profile)
    if smaller is None:
        return "no smaller profile runs on the GPUs of this machine"
    return f"the next smaller profile for this machine's GPUs is {smaller}: `make reproduce PROFILE={smaller}`"


def smaller_profile(profile: Profile) -> str | None:
    """The largest profile below this one for which this machine has the GPUs. Its memory 02 checks before it trains.

    Profiles of several trainings, and those that train nothing, are no substitute for one that trains a model.
    """
    others = [load_profile(file) for file in sorted(PROFILES.glob("*.yaml"))]
    others = [
        other for other in others if len(other.sft.seeds) < 2 and set(other.sft.runs) & set(other.inference.models)
    ]
    fitting = [other for other in others if _size(other) < _size(profile) and _large_gpus(other) >= other.hardware.gpus]
    return max(fitting, key=_size).name if fitting else None


def _size(profile: Profile) -> tuple[int, int, int]:
    return profile.hardware.gpus, profile.hardware.gpu_memory_gib, profile.curation.response_token_budget


def _large_gpus(profile: Profile) -> int:
    sizes = [torch.cuda.get_device_properties(i).total_memory / 2**30 for i in range(torch.cuda.device_count())]
    return sum(
        size > 0.95 * profile.hardware.gpu_memory_gib for size in sizes
    )  # a card's usable memory is a little less


def has_bf16_units() -> bool:
    """Whether bfloat16 is the faster arithmetic here: GPUs since Ampere, CPUs with AMX or AVX-512 BF16.

    A product of matrices on two cores: 437 GFLOP/s against 193 in float32 on an EPYC with AVX-512 BF16, 130 against
    250 on a Xeon with AVX-512 alone, where it is emulated.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    units = torch.cpu.get_capabilities()
    return units.get("amx_bf16", False) or units.get("avx512_bf16", False)


def device_memory() -> int:
    """Bytes of the smallest GPU; where there is none, of the machine, or of the container if that may use less."""
    cards = range(torch.cuda.device_count())
    sizes = [torch.cuda.get_device_properties(i).total_memory for i in cards]
    if sizes:
        return min(sizes)
    limits = [file.read_text().strip() for file in CONTAINER_LIMITS if file.exists()]
    return min([psutil.virtual_memory().total, *(int(limit) for limit in limits if limit.isdigit())])
