"""One channel on its way from samples to windows: VAD, packing, and no more audio kept than
the next window can need."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.pipeline.windows import PackingRule, Window, WindowPlanner
from voiceforge.speech.vad.regions import RegionDetector
from voiceforge.speech.vad.silero import SpeechProbabilities


@dataclass(frozen=True, slots=True)
class WindowAudio:
    """A planned window and its samples, float32, shape (window.end - window.start,)."""

    channel: int
    window: Window
    samples: Waveform


class ChannelFeed:
    """Push the samples of one channel in order; take the windows that are complete."""

    def __init__(
        self,
        channel: int,
        *,
        probabilities: SpeechProbabilities,
        detector: RegionDetector,
        rule: PackingRule,
    ) -> None:
        self._channel = channel
        self._probabilities = probabilities
        self._detector = detector
        self._planner = WindowPlanner(rule)
        self._padding = rule.padding_samples
        self._kept: list[Waveform] = []
        self._kept_from = 0
        self._received = 0

    def push(self, block: Waveform) -> list[WindowAudio]:
        self._kept.append(block)
        self._received += len(block)
        regions = self._detector.push(self._probabilities.push(block))
        windows = self._planner.push(regions, self._speech_from)
        ready = [self._cut(window) for window in windows]
        self._forget()
        return ready

    def flush(self) -> list[WindowAudio]:
        """The channel is over: the windows that are left."""
        regions = self._detector.push(self._probabilities.flush()) + self._detector.flush()
        # The last frame is judged filled up with silence: its region may end after the recording.
        inside = [replace(region, end=min(region.end, self._received)) for region in regions]
        windows = self._planner.push(inside, self._speech_from)
        windows += self._planner.flush(self._received)
        return [self._cut(window) for window in windows]

    @property
    def settled_samples(self) -> int:
        """Up to here every window is complete."""
        needed = self._planner.needed_from
        return self._speech_from if needed is None else min(needed, self._speech_from)

    @property
    def _speech_from(self) -> int:
        """No region still to come begins before this."""
        opened = self._detector.open_since
        return self._detector.position if opened is None else opened

    def _cut(self, window: Window) -> WindowAudio:
        joined = np.concatenate(self._kept) if len(self._kept) > 1 else self._kept[0]
        self._kept = [joined]
        samples = joined[window.start - self._kept_from : window.end - self._kept_from].copy()
        return WindowAudio(self._channel, window, samples)

    def _forget(self) -> None:
        """Drop what no window to come can hold, of the block it ends in too: windows join blocks, and
        one that grew with every window would in the end be the whole recording."""
        oldest = self.settled_samples - self._padding
        while len(self._kept) > 1 and self._kept_from + len(self._kept[0]) <= oldest:
            self._kept_from += len(self._kept.pop(0))
        spare = oldest - self._kept_from
        if spare >= SAMPLE_RATE_HZ:
            self._kept[0] = self._kept[0][spare:].copy()
            self._kept_from = oldest
