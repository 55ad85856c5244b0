from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from voiceforge.speech.engines.device import (
    MOST_CPU_THREADS,
    SMALL_GPU_BYTES,
    DeviceChoice,
    DeviceFacts,
    DeviceWish,
    choose_device,
    cpu_features,
    probe_devices,
    usable_cores,
)

CPU_ONLY = DeviceFacts(cores=4, cpu_types=frozenset({"int8", "int8_float32", "float32"}))
GPU = replace(
    CPU_ONLY,
    cuda_devices=1,
    cuda_types=frozenset({"float16", "int8_float16", "int8", "float32", "bfloat16"}),
    cuda_memory_bytes=24 * 1024**3,
)


def test_a_cpu_computes_in_int8_on_its_cores() -> None:
    assert choose_device(facts=CPU_ONLY) == DeviceChoice("cpu", "int8", threads=4)
    assert choose_device(threads=2, facts=CPU_ONLY).threads == 2
    assert choose_device(facts=replace(CPU_ONLY, cores=64)).threads == MOST_CPU_THREADS


@pytest.mark.parametrize("wish", ["auto", "cuda"])
def test_a_gpu_computes_in_float16(wish: DeviceWish) -> None:
    choice = choose_device(wish, facts=GPU)
    assert (choice.device, choice.compute_type, choice.notes) == ("cuda", "float16", ())


def test_a_small_gpu_holds_int8_weights() -> None:
    small = replace(GPU, cuda_memory_bytes=SMALL_GPU_BYTES - 1)
    assert choose_device(facts=small).compute_type == "int8_float16"


def test_an_old_gpu_without_float16_gets_what_it_can() -> None:
    old = replace(GPU, cuda_types=frozenset({"int8", "float32"}))
    assert choose_device(facts=old).compute_type == "int8"


def test_the_cpu_can_be_chosen_beside_a_gpu() -> None:
    assert choose_device("cpu", facts=GPU) == DeviceChoice("cpu", "int8", threads=4)


@pytest.mark.parametrize("wish", ["auto", "cuda"])
def test_an_unusable_gpu_leaves_the_cpu_and_a_note(wish: DeviceWish) -> None:
    broken = replace(GPU, cuda_problem="libcublas.so.12 cannot be loaded")
    choice = choose_device(wish, facts=broken)
    assert (choice.device, choice.compute_type) == ("cpu", "int8")
    assert choice.notes == ("the GPU is not used: libcublas.so.12 cannot be loaded; computing on the CPU",)


def test_a_wish_for_a_gpu_that_is_not_there_is_answered() -> None:
    assert choose_device("cuda", facts=CPU_ONLY).notes == ("no CUDA device was found; computing on the CPU",)
    assert choose_device("auto", facts=CPU_ONLY).notes == ()


def test_a_number_type_is_taken_where_offered_and_replaced_with_a_note_elsewhere() -> None:
    assert choose_device("cpu", "float32", facts=CPU_ONLY) == DeviceChoice("cpu", "float32", threads=4)
    choice = choose_device("cpu", "float16", facts=CPU_ONLY)
    assert choice.compute_type == "int8"
    assert choice.notes == ("float16 is not available on this CPU; computing in int8",)


def test_before_ctranslate2_is_installed_there_is_a_choice_all_the_same() -> None:
    assert choose_device(facts=DeviceFacts(cores=2)) == DeviceChoice("cpu", "int8", threads=2)


def test_this_machine_answers() -> None:
    facts = probe_devices()
    assert facts.cores == usable_cores() >= 1
    assert choose_device("cpu").threads <= facts.cores


CPUINFO_X86 = """processor\t: 0
flags\t\t: fpu avx avx2 fma avx512f avx512_vnni
processor\t: 1
"""
CPUINFO_ARM = """processor : 0
Features  : fp asimd asimddp
"""


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (CPUINFO_X86, ("AVX", "AVX2", "FMA", "AVX512F", "AVX512-VNNI")),
        (CPUINFO_ARM, ("NEON", "NEON-DOTPROD")),
        ("", ()),
    ],
)
def test_cpu_features_are_read_from_the_kernel(tmp_path: Path, text: str, features: tuple[str, ...]) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_features(tmp_path / "cpuinfo") == features


def test_without_cpuinfo_the_features_are_unknown(tmp_path: Path) -> None:
    assert cpu_features(tmp_path / "nothing") == ()
