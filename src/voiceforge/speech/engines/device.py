"""Which device and number type an engine runs on: facts about this machine in, one choice out.

`probe_devices` asks the machine; `choose_device` only reasons, and never fails: what cannot be
had is replaced by the CPU or by another number type, and the choice carries a note for people.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

DeviceName = Literal["cpu", "cuda"]
DeviceWish = Literal["auto", "cpu", "cuda"]

SMALL_GPU_BYTES = 6 * 1024**3
"""Below this a GPU gets int8 weights: large-v2 takes 4.5 GB in float16, 2.9 GB in int8
(faster-whisper's own benchmark, beam 5)."""

MOST_CPU_THREADS = 8
"""More threads than this gain nothing on one 30-second window."""

# Best first. int8 computes with the CPU's own fastest companion type.
CPU_TYPES = ("int8", "float32")
CUDA_TYPES = ("float16", "int8_float16", "bfloat16", "int8", "float32")
SMALL_CUDA_TYPES = ("int8_float16", "int8", "float16", "float32")

# What the CPU must have for quick int8 arithmetic, by the names in /proc/cpuinfo.
CPU_FEATURE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "avx": "AVX",
        "avx2": "AVX2",
        "fma": "FMA",
        "f16c": "F16C",
        "avx512f": "AVX512F",
        "avx512_vnni": "AVX512-VNNI",
        "avx_vnni": "AVX-VNNI",
        "avx512_bf16": "AVX512-BF16",
        "amx_int8": "AMX-INT8",
        "asimd": "NEON",
        "asimddp": "NEON-DOTPROD",
        "i8mm": "NEON-I8MM",
        "sve": "SVE",
    }
)


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """threads: CPU threads of one decode. notes: one sentence each, about what was wished and not had."""

    device: DeviceName
    compute_type: str
    threads: int
    notes: tuple[str, ...] = ()

    @property
    def runs_on(self) -> RunsOn:
        return RunsOn(f"{self.device}, {self.compute_type}", self.notes)


@dataclass(frozen=True, slots=True)
class RunsOn:
    """What a loaded model runs on, for people: a name, and what was wished and not had."""

    name: str
    notes: tuple[str, ...] = ()


ON_CPU = RunsOn("cpu")
"""Of engines that have no choice."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What this machine can do.

    cores: CPU cores this process may use, container limits counted.
    cpu_types, cuda_types: number types CTranslate2 can compute in; empty where it is not installed.
    cuda_memory_bytes: of the first GPU; None where unknown.
    cuda_problem: why a GPU that is there cannot be used; None: nothing known against it.
    """

    cores: int
    cpu_types: frozenset[str] = frozenset()
    cuda_devices: int = 0
    cuda_types: frozenset[str] = frozenset()
    cuda_memory_bytes: int | None = None
    cuda_problem: str | None = None


def choose_device(
    device: DeviceWish = "auto",
    compute_type: str = "auto",
    threads: int | None = None,
    *,
    facts: DeviceFacts | None = None,
) -> DeviceChoice:
    """Pick where to compute and in which numbers.

    Args:
        compute_type: "auto", or one of CTranslate2's names.
        threads: None: every core this process may use, up to `MOST_CPU_THREADS`.
        facts: None: ask this machine.
    """
    facts = probe_devices() if facts is None else facts
    notes: list[str] = []
    where: DeviceName = "cpu"
    if device != "cpu" and facts.cuda_devices:
        if facts.cuda_problem is None and facts.cuda_types:
            where = "cuda"
        else:
            problem = facts.cuda_problem or "it supports none of the number types"
            notes.append(f"the GPU is not used: {problem}; computing on the CPU")
    elif device == "cuda":
        notes.append("no CUDA device was found; computing on the CPU")

    best = _best_type(where, facts)
    if compute_type == "auto":
        compute_type = best
    elif compute_type not in _offered_types(where, facts):
        notes.append(f"{compute_type} is not available on this {_NAMES[where]}; computing in {best}")
        compute_type = best
    return DeviceChoice(
        device=where,
        compute_type=compute_type,
        threads=threads or min(facts.cores, MOST_CPU_THREADS),
        notes=tuple(notes),
    )


def probe_devices() -> DeviceFacts:
    """Ask this machine. Loads CTranslate2 where it is installed; takes about 50 ms, once."""
    cores = usable_cores()
    try:
        import ctranslate2
    except ImportError:
        return DeviceFacts(cores=cores)
    cpu_types = frozenset(ctranslate2.get_supported_compute_types("cpu"))
    try:
        devices = ctranslate2.get_cuda_device_count()
        cuda_types = frozenset(ctranslate2.get_supported_compute_types("cuda")) if devices else frozenset()
    except (RuntimeError, ValueError):  # a driver that is too old, or broken
        return DeviceFacts(
            cores, cpu_types, cuda_devices=1, cuda_problem="its driver does not answer; see `nvidia-smi`"
        )
    if not devices:
        return DeviceFacts(cores=cores, cpu_types=cpu_types)
    return DeviceFacts(
        cores=cores,
        cpu_types=cpu_types,
        cuda_devices=devices,
        cuda_types=cuda_types,
        cuda_memory_bytes=_cuda_memory_bytes(),
        cuda_problem=_missing_cuda_library(ctranslate2.__version__),
    )


def usable_cores() -> int:
    """Cores this process may use: its affinity, and the CPU share of its container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, math.ceil(_cgroup_cores(Path("/sys/fs/cgroup/cpu.max")) or count)))


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Vector instructions that matter for speed, by their usual names; empty where unknown."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return ("NEON", "NEON-DOTPROD")
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ()
    flags = next((line.split(":", 1)[1] for line in lines if line.startswith(("flags", "Features"))), "")
    present = set(flags.split())
    return tuple(label for flag, label in CPU_FEATURE_NAMES.items() if flag in present)


_NAMES: Mapping[DeviceName, str] = MappingProxyType({"cpu": "CPU", "cuda": "GPU"})


def _offered_types(where: DeviceName, facts: DeviceFacts) -> frozenset[str]:
    if where == "cuda":
        return facts.cuda_types
    return facts.cpu_types or frozenset(CPU_TYPES)  # not known before CTranslate2 is installed


def _best_type(where: DeviceName, facts: DeviceFacts) -> str:
    preferred: tuple[str, ...] = CPU_TYPES
    if where == "cuda":
        small = facts.cuda_memory_bytes is not None and facts.cuda_memory_bytes < SMALL_GPU_BYTES
        preferred = SMALL_CUDA_TYPES if small else CUDA_TYPES
    offered = _offered_types(where, facts)
    return next((name for name in preferred if name in offered), "float32")


def _cgroup_cores(cpu_max: Path) -> float | None:
    """Cores granted by cgroup v2's `quota period`, None without a limit."""
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _cuda_memory_bytes() -> int | None:
    """Total memory of the first GPU, asked of the driver; None where it does not tell."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        handle, total = ctypes.c_int(), ctypes.c_size_t()
        calls = (
            driver.cuInit(0),
            driver.cuDeviceGet(ctypes.byref(handle), 0),
            driver.cuDeviceTotalMem_v2(ctypes.byref(total), handle),
        )
    except (OSError, AttributeError):
        return None
    return None if any(calls) else total.value


def _missing_cuda_library(ctranslate2_version: str) -> str | None:
    """The first library CTranslate2 would look for in vain, with the mend.

    It opens them at the first decode, and a missing cuDNN ends the process there, so look first.
    Its wheels use cuDNN up to 4.6 only (own convolution since 4.7).
    """
    if sys.platform != "linux":
        return None
    major, minor = (int(part) for part in ctranslate2_version.split(".")[:2])
    needed = {"libcublas.so.12": "nvidia-cublas-cu12"}
    if (major, minor) < (4, 7):
        old = (major, minor) < (4, 5)
        needed |= {"libcudnn.so.8" if old else "libcudnn.so.9": "nvidia-cudnn-cu12"}
    for library, package in needed.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            return f"{library} cannot be loaded (install {package} and name its folder in LD_LIBRARY_PATH)"
    return None
