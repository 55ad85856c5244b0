"""Where in a long recording somebody speaks, roughly and at once: half a second of every ten is listened to.

How long a recording takes depends on the speech in it, which nothing that was heard so far foretells.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from voiceforge.errors import VoiceForgeError
from voiceforge.speech.audio.decode import AudioStream
from voiceforge.speech.vad.silero import SileroModel, SpeechProbabilities

SURVEYED_FROM_S = 300.0
"""Shorter recordings are over before anybody plans by it."""

_EVERY_S = 10.0
_GLIMPSE_S = 0.5
_MOST_GLIMPSES = 2_000
_PATIENCE_S = 10.0
"""Of CPU time. Some containers have no index, and every place in them is looked for from the beginning."""


@dataclass(frozen=True, slots=True)
class Outline:
    """shares: how much of each stretch of `every_s` seconds is speech, 0 to 1; with channels kept apart, of
    all of them together."""

    every_s: float
    shares: tuple[float, ...]

    def speech_s(self, until_s: float) -> float:
        """How much speech there is before `until_s`."""
        whole, part = divmod(until_s / self.every_s, 1.0)
        before = int(whole)
        here = self.shares[before] if before < len(self.shares) else 0.0
        return self.every_s * (sum(self.shares[:before]) + part * here)


def survey_speech(stream: AudioStream, vad: SileroModel, threshold: float) -> Outline | None:
    """Look through a recording. Spends `stream`: its blocks cannot be read afterwards.

    Args:
        threshold: of the probability from which on a frame is speech.

    Returns: None where the recording is short, or cannot be looked through.
    """
    total_s = stream.info.duration_s
    if total_s is None or total_s < SURVEYED_FROM_S:
        return None
    count = min(round(total_s / _EVERY_S), _MOST_GLIMPSES)
    every_s = total_s / count
    shares: list[float] = []
    began_s = time.thread_time()
    for number in range(count):
        try:
            rows = stream.glimpse((number + 0.5) * every_s, _GLIMPSE_S)
        except VoiceForgeError:
            return None
        if not rows.shape[1] or time.thread_time() - began_s > _PATIENCE_S:
            return None
        heard = [SpeechProbabilities(vad).push(row) for row in rows]
        shares.append(sum(_share(frames, threshold) for frames in heard))
    return Outline(every_s, tuple(shares))


def _share(probabilities: list[float], threshold: float) -> float:
    spoken = sum(probability >= threshold for probability in probabilities)
    return round(spoken / len(probabilities), 3) if probabilities else 0.0
