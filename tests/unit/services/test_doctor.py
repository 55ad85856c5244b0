from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from voiceforge.errors import EngineFailed
from voiceforge.infra.modelstore.base import ModelStore
from voiceforge.services.doctor import Doctor, Finding
from voiceforge.services.models import Models, ModelSource
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import Engine
from voiceforge.speech.engines.device import DeviceFacts, DeviceWish, choose_device
from voiceforge.testing.fake_engine import FAKE_CAPABILITIES, FakeEngine, says
from voiceforge.testing.scripted_cli import ShelfStore

NO_GPU = DeviceFacts(cores=2, cpu_types=frozenset({"int8"}))
GPU = replace(NO_GPU, cuda_devices=1, cuda_types=frozenset({"float16"}), cuda_memory_bytes=8_000_000_000)


class NothingLoaded:
    def is_loaded(self, model_id: str) -> bool:
        return False


@pytest.fixture
def shelf() -> ShelfStore:
    store = ShelfStore()
    store.put("moonshine-tiny-en")
    return store


@pytest.fixture
def examine(shelf: ShelfStore, tmp_path: Path) -> Callable[..., dict[str, Finding]]:
    def run(
        *,
        facts: DeviceFacts = NO_GPU,
        wish: DeviceWish = "auto",
        gpu: bool = False,
        engine: Engine | None = None,
        round_trip: Callable[[], float] = lambda: 5e9,
        **changes: Any,
    ) -> dict[str, Finding]:
        def gpu_engine(source: ModelSource) -> Engine:
            assert engine is not None
            assert source.entry.id == "whisper-tiny"
            return engine

        arguments: dict[str, Any] = {"data_dir": tmp_path, "address": ("127.0.0.1", 0), **changes}
        doctor = Doctor(
            models=Models(
                cast(ModelStore, shelf),
                default="moonshine-tiny-en",
                aliases={},
                loaded=NothingLoaded(),
                has_runtime=lambda runtime: True,
            ),
            choose=lambda found: choose_device(wish, facts=found),
            gpu_engine=gpu_engine,
            probe=lambda: facts,
            round_trip=round_trip,
            **arguments,
        )
        return {finding.name: finding for finding in doctor.examine(gpu=gpu)}

    return run


def test_a_device_that_is_wished_and_not_had_is_told(examine: Callable[..., dict[str, Finding]]) -> None:
    assert examine()["device"] == Finding("device", "ok", "Whisper models run on cpu in int8")
    assert examine(facts=GPU)["device"].detail == "Whisper models run on cuda in float16"
    told = examine(wish="cuda")["device"]
    assert (told.level, told.mend is not None) == ("warn", True)
    assert "no CUDA device was found; computing on the CPU" in told.detail


def test_here_nothing_fails(examine: Callable[..., dict[str, Finding]]) -> None:
    findings = examine()
    assert [f for f in findings.values() if f.level == "fail"] == []
    assert {"python", "cpu", "cuda", "memory", "disk", "moonshine", "model", "codecs", "port"} <= set(
        findings
    )
    for name in ("wav", "mp3", "opus", "m4a/aac", "amr", "mu-law"):
        assert name in findings["codecs"].detail
    assert "no CUDA device" in findings["cuda"].detail


def test_a_missing_default_model_fails_with_the_command_to_run(
    examine: Callable[..., dict[str, Finding]], shelf: ShelfStore
) -> None:
    shelf.shelf.clear()
    model = examine()["model"]
    assert model.level == "fail"
    assert "pip install --force-reinstall moonshine-voice" in model.detail


def test_a_data_folder_that_is_a_file_fails(
    examine: Callable[..., dict[str, Finding]], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("in the way")
    disk = examine(data_dir=tmp_path / "data" / "below")["disk"]
    assert disk.level == "fail"
    assert disk.mend is not None
    assert "VOICEFORGE_DATA_DIR" in disk.mend


def test_a_folder_yet_to_be_made_is_judged_by_its_parent(
    examine: Callable[..., dict[str, Finding]], tmp_path: Path
) -> None:
    assert examine(data_dir=tmp_path / "a" / "b")["disk"].level != "fail"
    assert not (tmp_path / "a").exists()


def test_a_taken_port_is_a_warning(examine: Callable[..., dict[str, Finding]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        assert examine(address=address)["port"].level == "warn"
    assert examine(address=address)["port"].level == "ok"


def test_a_gpu_that_cannot_be_used_is_a_warning_with_the_reason(
    examine: Callable[..., dict[str, Finding]],
) -> None:
    broken = replace(GPU, cuda_problem="libcublas.so.12 cannot be loaded")
    findings = examine(facts=broken, gpu=True)
    assert findings["cuda"].level == "warn"
    assert findings["cuda"].mend == "libcublas.so.12 cannot be loaded"
    assert findings["gpu test"].level == "fail"


class TestGpu:
    def test_without_one_it_says_so(self, examine: Callable[..., dict[str, Finding]]) -> None:
        finding = examine(gpu=True)["gpu test"]
        assert finding.level == "ok"
        assert "no CUDA device" in finding.detail

    def test_memory_alone_is_not_passed_off_as_computing(
        self, examine: Callable[..., dict[str, Finding]]
    ) -> None:
        findings = examine(facts=GPU, gpu=True)
        assert findings["gpu memory"].level == "ok"
        assert findings["gpu speech"].level == "warn"
        assert findings["gpu speech"].mend == "voiceforge models pull whisper-tiny"

    def test_real_speech_is_recognised_on_it(
        self, examine: Callable[..., dict[str, Finding]], shelf: ShelfStore
    ) -> None:
        shelf.put("whisper-tiny")
        engine = FakeEngine(says("try again"), capabilities=FAKE_CAPABILITIES)
        speech = examine(facts=GPU, gpu=True, engine=engine)["gpu speech"]
        assert speech.level == "ok"
        assert "whisper-tiny" in speech.detail
        (samples,) = engine.calls[0].window_samples
        assert 9.9 < samples / SAMPLE_RATE_HZ < 10.1  # the clip, whole
        assert engine.closed

    def test_silence_from_it_is_a_failure(
        self, examine: Callable[..., dict[str, Finding]], shelf: ShelfStore
    ) -> None:
        shelf.put("whisper-tiny")
        assert examine(facts=GPU, gpu=True, engine=FakeEngine(says("")))["gpu speech"].level == "fail"

    def test_a_broken_one_fails_with_its_reason(self, examine: Callable[..., dict[str, Finding]]) -> None:
        def breaks() -> float:
            raise EngineFailed("the GPU gave back other numbers than it was given")

        finding = examine(facts=GPU, gpu=True, round_trip=breaks)["gpu test"]
        assert finding.level == "fail"
        assert "other numbers" in finding.detail
