"""How much work a recording still makes, from what was heard of it and from its outline."""

from __future__ import annotations

from collections.abc import Iterable

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.outline import Outline

HEARING = 0.1
"""The work of listening to a second, where 1 is that of recognising one: as measured with the embedded engine
(`benchmarks/listening.py`, `benchmarks/engine.py`)."""

_TRUSTED_S = 60.0
"""So much of the speech in an outline passes for having come true before anything was heard; and without an
outline nothing is foretold before so much was heard."""


class Forecast:
    """Work is counted in seconds of windows.

    Args:
        total_s: the length of the recording; None: not known.
    """

    def __init__(self, total_s: float | None, outline: Outline | None) -> None:
        self._total_s = total_s
        self._outline = outline
        self._windows_s = 0.0
        self._heard_s = 0.0

    def heard(self, windows: Iterable[WindowAudio], heard_s: float) -> None:
        """These came; nothing before `heard_s` is still to come."""
        self._windows_s += sum(window_s(audio) for audio in windows)
        self._heard_s = heard_s

    def done(self, recognised_s: float) -> float:
        return recognised_s + HEARING * self._heard_s

    def left(self, waiting_s: float) -> float | None:
        """waiting_s: of windows that were heard and are not done. None: it cannot be told."""
        if self._total_s is None:
            return None
        unheard_s = max(self._total_s - self._heard_s, 0.0)
        if self._outline is None and unheard_s and self._heard_s < _TRUSTED_S:
            return None
        return waiting_s + self._to_come_s(unheard_s) + HEARING * unheard_s

    def _to_come_s(self, unheard_s: float) -> float:
        """Of windows."""
        if self._outline is None:
            return self._windows_s / self._heard_s * unheard_s if unheard_s else 0.0
        foretold_s = self._outline.speech_s(self._heard_s)
        came_true = (self._windows_s + _TRUSTED_S) / (foretold_s + _TRUSTED_S)
        return came_true * (self._outline.speech_s(self._heard_s + unheard_s) - foretold_s)


def window_s(audio: WindowAudio) -> float:
    return (audio.window.end - audio.window.start) / SAMPLE_RATE_HZ
