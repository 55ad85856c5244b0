"""An engine host around a `FakeEngine`, in a real child process: for tests of what hosts are good for.

What a window's prompt says is what happens to it: nothing special, one of the words below, or that of a
`Hold`. The text is that of `says_by_length`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voiceforge.errors import EngineFailed, ModelNotInstalled
from voiceforge.infra.enginehost.base import EngineSpec
from voiceforge.infra.enginehost.child import run_host
from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.base import (
    DecodeOptions,
    Engine,
    Hypothesis,
    HypothesisSegment,
    Wanted,
    always_wanted,
)
from voiceforge.speech.engines.catalog import CATALOG
from voiceforge.speech.engines.device import RunsOn
from voiceforge.speech.engines.tickets import BatcherLimits
from voiceforge.testing.fake_engine import FAKE_CAPABILITIES, FakeEngine, says_by_length
from voiceforge.testing.hold import stand_still

DIE = "die"
"""The process ends at once, as by a crash in native code."""
SLOW = "slow"
"""Takes `SLOW_S`."""
HANG = "hang"
"""Never comes back."""
FAIL = "fail"
"""The engine says that it failed."""
GROW = "grow"
"""Keeps `GROWN_BYTES` of memory for ever."""
SAY_IF_WARM = "say if warm"
"""The text is `WARM` or `COLD`: whether the host was to be warmed up when it was started."""

SLOW_S = 0.3
GROWN_BYTES = 200 << 20
WARM, COLD = "warm", "cold"

NOT_INSTALLED = Path("not-installed")
DIES_LOADING = Path("dies-loading")
STOPS_LOADING = Path("stops-loading")
BUSY_LOADING = Path("busy-loading")
BUSY_S = 4.0

COMMAND = (sys.executable, "-P", "-m", "voiceforge.testing.fake_engine_host")


def fake_spec(
    model_id: str = "fake", path: Path = Path("fake"), *, limits: BatcherLimits | None = None
) -> EngineSpec:
    """path: `NOT_INSTALLED` and `DIES_LOADING` fail to load, `STOPS_LOADING` never does; any other loads,
    `BUSY_LOADING` after `BUSY_S` of computing."""
    entry = replace(CATALOG[0], id=model_id)
    return EngineSpec(entry, path, "1", cores=2, limits=limits or BatcherLimits())


class PartPlayer(FakeEngine):
    """The engine of such a host."""

    def __init__(self, *, warm: bool = True) -> None:
        super().__init__(says_by_length(), capabilities=FAKE_CAPABILITIES)
        self._warm = warm
        self._kept: list[bytes] = []

    def decode(
        self, windows: Sequence[Waveform], options: DecodeOptions, wanted: Wanted = always_wanted
    ) -> list[Hypothesis]:
        stand_still(options.prompt)
        match options.prompt:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "slow":
                time.sleep(SLOW_S)
            case "hang":
                time.sleep(3600)
            case "fail":
                raise EngineFailed("the engine failed as it was told")
            case "grow":
                self._kept.append(os.urandom(1 << 20) * (GROWN_BYTES >> 20))
            case "say if warm":
                said = HypothesisSegment(0.0, 1.0, WARM if self._warm else COLD)
                return [Hypothesis((said,)) for _ in windows]
        return super().decode(windows, options, wanted)


def _load(spec: EngineSpec) -> tuple[Engine, RunsOn]:
    if spec.path == NOT_INSTALLED:
        raise ModelNotInstalled("the model is not here", field="model", choices=("fake",))
    if spec.path == DIES_LOADING:
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.path == STOPS_LOADING:
        os.kill(os.getpid(), signal.SIGSTOP)
    until_s = time.monotonic() + BUSY_S
    while spec.path == BUSY_LOADING and time.monotonic() < until_s:
        pass
    return PartPlayer(warm=spec.warm_up), RunsOn("fake device", ("a wish was not met",))


if __name__ == "__main__":
    run_host(_load)
