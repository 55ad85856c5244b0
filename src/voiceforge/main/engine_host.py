"""The process that runs one model for all who use it. Started by its keeper, never by hand."""

from __future__ import annotations

import numpy as np

from voiceforge.errors import EngineFailed, VoiceForgeError
from voiceforge.infra.enginehost.base import EngineSpec
from voiceforge.infra.enginehost.child import run_host
from voiceforge.main.memory import return_large_blocks, suit_memory_to
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import DecodeOptions, Engine
from voiceforge.speech.engines.device import RunsOn, choose_device
from voiceforge.speech.engines.registry import load_engine

_WARM_UP_S = 1


def main() -> None:
    return_large_blocks()
    run_host(_load)


def _load(spec: EngineSpec) -> tuple[Engine, RunsOn]:
    engine, runs_on = load_engine(
        spec.entry,
        spec.path,
        spec.revision,
        cores=spec.cores,
        device=lambda: choose_device(spec.device, spec.compute_type, spec.threads),
    )
    suit_memory_to(spec.entry.runtime)
    if spec.warm_up:
        _warm_up(engine)
    return engine, runs_on


def _warm_up(engine: Engine) -> None:
    """The first decode of a runtime allocates and tunes: nobody shall wait for that."""
    noise = np.random.default_rng(0).normal(0.0, 0.01, _WARM_UP_S * SAMPLE_RATE_HZ).astype(np.float32)
    try:
        engine.decode([noise], DecodeOptions())
    except EngineFailed:
        raise
    except VoiceForgeError:
        pass  # about the options, not about the engine


if __name__ == "__main__":
    main()
