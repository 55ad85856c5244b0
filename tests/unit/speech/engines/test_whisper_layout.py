"""How much a Whisper does at a time."""

from __future__ import annotations

import pytest

from voiceforge.speech.engines.device import DeviceChoice
from voiceforge.speech.engines.whisper_layout import HEAVY_MODEL_BYTES, layout


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8])
def test_the_calls_share_the_cores(threads: int) -> None:
    chosen = layout(DeviceChoice("cpu", "int8", threads), 0)
    assert chosen.calls == chosen.workers
    assert chosen.calls * chosen.threads <= threads
    assert chosen.calls >= min(threads, 2)


def test_only_heavy_models_gain_from_batches_on_a_cpu() -> None:
    cpu = DeviceChoice("cpu", "int8", 2)
    assert layout(cpu, HEAVY_MODEL_BYTES - 1).rows == 1
    assert layout(cpu, HEAVY_MODEL_BYTES).rows > 1


@pytest.mark.parametrize("compute_type", ["int16", "int16_float32"])
def test_numbers_that_depend_on_the_batch_get_no_batches(compute_type: str) -> None:
    assert layout(DeviceChoice("cpu", compute_type, 2), HEAVY_MODEL_BYTES).rows == 1


def test_a_gpu_is_given_large_batches_and_is_never_shared_out() -> None:
    chosen = layout(DeviceChoice("cuda", "float16", 8), 0)
    assert chosen.workers == 1
    assert chosen.rows == chosen.encoder_rows > 1


def test_how_many_calls_may_be_said() -> None:
    assert layout(DeviceChoice("cpu", "int8", 4), 0, calls=1).calls == 1
    assert layout(DeviceChoice("cpu", "int8", 4), 0, calls=1).threads == 4
