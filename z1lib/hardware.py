"""What this machine has, what a profile wants, and which profile to take where it has less."""

import time
import warnings
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


def decoding_dtype(profile: Profile) -> str | None:
    """The arithmetic 03 decodes in; None is the checkpoint's own.

    Where the profile names none the transformers engine takes bfloat16 if there are units for it; vLLM and its server
    keep the checkpoint's. Warns, with the measured factor, if bfloat16 is asked for where it is only emulated.
    """
    asked = profile.inference
    if asked.dtype is None:
        return "bfloat16" if asked.engine == "transformers" and has_bf16_units() else None
    if asked.dtype == "bfloat16" and not has_bf16_units():
        slower = _time_product(torch.bfloat16) / _time_product(torch.float32)
        warnings.warn(
            f"no units for bfloat16 here: a product of matrices takes {slower:.1f} times what it does in float32",
            stacklevel=2,
        )
    return asked.dtype


def _time_product(dtype: torch.dtype) -> float:
    """Seconds of a product of two square matrices of 1,024, the fastest of three."""
    matrix = torch.ones(1024, 1024, dtype=dtype, device="cuda" if torch.cuda.is_available() else "cpu")
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def free_memory() -> int:
    """Bytes that can still be used: of the GPU at hand, else of the machine or the container."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return min(psutil.virtual_memory().available, device_memory() - psutil.Process().memory_info().rss)


def device_memory() -> int:
    """Bytes of the smallest GPU; where there is none, of the machine, or of the container if that may use less."""
    cards = range(torch.cuda.device_count())
    sizes = [torch.cuda.get_device_properties(i).total_memory for i in cards]
    if sizes:
        return min(sizes)
    limits = [file.read_text().strip() for file in CONTAINER_LIMITS if file.exists()]
    return min([psutil.virtual_memory().total, *(int(limit) for limit in limits if limit.isdigit())])
