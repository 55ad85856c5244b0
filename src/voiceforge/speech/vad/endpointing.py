"""Probabilities → utterances, one frame at a time: when somebody begins, pauses, goes on, has ended.

p  ▁▁▂▇██▇▃▁▁▆███▇▂▁▁▁▁▁▁▁▁▁▁▁▁▁▂▇█
      [   utterance    ]···          ··· its tail: audio that is decoded with it
      │    │   │        │  │     └ Ended, once the pause has lasted `endpoint_ms`; the utterance
      │    │   └Resumed │  └ Paused, at the end of the tail: what was said could be decoded now
      │    └ Paused     └ where the pause began
      └ Began, told once the speech has lasted `min_speech_ms`

Thresholds are those of `RegionDetector`, and so is the place where one that grows too long is cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.vad.regions import CUT_WIDTH_FRAMES, HYSTERESIS, Region
from voiceforge.speech.vad.silero import FRAME_SAMPLES

EndReason = Literal["silence", "max_length", "finalize", "close"]

_FRAME_MS = FRAME_SAMPLES * 1000 // SAMPLE_RATE_HZ
_SURE, _FADING = 0.8, 0.2
"""Of the way from the threshold to 1. Silero falls slowly, the more so the softer speech ends: where the last
frame before a pause is below the first, speech had ended in it; below the second, in the one before it."""
_FADING_FROM_SAMPLES = 2 * SAMPLE_RATE_HZ
"""In a shorter utterance the second is not looked at: parted too soon, it is recognised worse."""
_CLOSURE_FRAMES = 5
"""160 ms: in a shorter pause a consonant may be closed, and the first is not looked at."""
_DECODE_FRAMES = 3
"""Of the pause, for decoding what was said before its end is told."""


@dataclass(frozen=True, slots=True)
class EndpointRule:
    """threshold: of the probabilities, as in `VadOptions`.
    endpoint_ms: the pause that ends an utterance; None: none does.
    min_utterance_ms: no pause ends it before it has lasted so long.
    max_utterance_samples: where it is cut.
    tail_ms: how much of the pause after it belongs to what is decoded; less where `endpoint_ms` would leave
        no time to decode it in.
    min_speech_ms: shorter sounds are no utterance.
    min_silence_ms: a pause this long parts two regions of one utterance.
    """

    threshold: float
    endpoint_ms: int | None
    max_utterance_samples: int
    min_utterance_ms: int = 0
    tail_ms: int = 128
    min_speech_ms: int = 100
    min_silence_ms: int = 300

    @property
    def endpoint_frames(self) -> int | None:
        return None if self.endpoint_ms is None else frames_of(self.endpoint_ms)

    @property
    def tail_frames(self) -> int:
        tail, endpoint = frames_of(self.tail_ms), self.endpoint_frames
        return tail if endpoint is None else max(1, min(tail, endpoint - _DECODE_FRAMES))


def frames_of(ms: int) -> int:
    """As many frames as last so long; at least one."""
    return max(1, -(-ms // _FRAME_MS))


@dataclass(frozen=True, slots=True)
class Spoken:
    """An utterance, or what there is of it: speech from sample `start` up to, not including, sample `end`.

    tail_end: up to here the audio behind it belongs to it. regions: of speech, in order; never empty.
    """

    start: int
    end: int
    tail_end: int
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class Began:
    """Somebody speaks, since sample `start`."""

    start: int


@dataclass(frozen=True, slots=True)
class Paused:
    """If nobody goes on speaking, the utterance will have been this."""

    spoken: Spoken


@dataclass(frozen=True, slots=True)
class Resumed:
    """The pause did not end the utterance."""


@dataclass(frozen=True, slots=True)
class Ended:
    """goes_on: the speech does; what comes of it is an utterance of its own, which no `Began` tells of, and
    which ends or fades. After `max_length` it ends."""

    spoken: Spoken
    reason: EndReason
    goes_on: bool


@dataclass(frozen=True, slots=True)
class Faded:
    """What went on after a cut was nothing but a pause: there is no utterance."""


Endpoint = Began | Paused | Resumed | Ended | Faded


class Endpointer:
    """Judges the frames of one channel. `rule` may be exchanged at any time."""

    def __init__(self, rule: EndpointRule) -> None:
        self.rule = rule
        self._frame = 0
        self._start: int | None = None
        """Sample at which the speech that is open began; perhaps not long enough yet to be an utterance."""
        self._begun = False
        self._heard: list[float] = []
        """Probabilities from the frame of `_start` on."""
        self._pause: int | None = None
        self._pauses: list[tuple[int, int]] = []
        """Of the open utterance, in frames: those that part regions."""

    @property
    def position(self) -> int:
        """Samples judged so far."""
        return self._frame * FRAME_SAMPLES

    @property
    def open_since(self) -> int | None:
        """Where the speech that is open began, also while it is too short to be an utterance."""
        return self._start

    @property
    def begun(self) -> bool:
        """Whether an utterance is open."""
        return self._begun

    @property
    def paused(self) -> bool:
        return self._pause is not None

    def so_far(self) -> Spoken:
        """The open utterance, as far as it was judged."""
        assert self._start is not None
        end = self._frame if self._pause is None else self._pause
        return self._spoken(max(end * FRAME_SAMPLES, self._start + 1), self.position)

    def judge(self, probability: float) -> list[Endpoint]:
        """Judge the next frame."""
        found: list[Endpoint] = []
        opens = self.rule.threshold
        if self._start is None:
            if probability >= opens:
                self._open(self.position, begun=False)
        elif probability >= opens:
            found += self._resume()
        elif probability < max(opens - HYSTERESIS, 0.01) and self._pause is None:
            self._pause = self._frame
        if self._start is not None:
            self._heard.append(probability)
        self._frame += 1
        if self._start is not None:
            found += self._decide()
        return found

    def end(self, at: int, reason: EndReason) -> list[Endpoint]:
        """End the open utterance, if there is one, at sample `at`, of which the last complete frame has
        been judged."""
        if self._start is None or not self._begun:
            return []
        if self._pause is not None:
            return self._end(self._pause * FRAME_SAMPLES, at, reason)
        if reason == "close":
            return self._end(at, at, reason)
        if at - self._start < self.rule.min_speech_ms * SAMPLE_RATE_HZ // 1000:
            return []  # what goes on after a cut that was just made
        ended = self._end(at, at, reason, goes_on=True)
        self._open(at, begun=True)
        return ended

    def _open(self, start: int, *, begun: bool) -> None:
        self._start, self._begun, self._pause = start, begun, None
        self._heard, self._pauses = [], []

    def _resume(self) -> list[Endpoint]:
        if self._pause is None:
            return []
        lasted = self._frame - self._pause
        if lasted >= frames_of(self.rule.min_silence_ms):
            self._pauses.append((self._pause, self._frame))
        self._pause = None
        return [Resumed()] if self._begun and lasted >= self.rule.tail_frames else []

    def _decide(self) -> list[Endpoint]:
        assert self._start is not None
        if not self._begun:
            return self._decide_whether_speech(self._start)
        if self._pause is not None:
            return self._decide_in_pause(self._start, self._pause)
        found: list[Endpoint] = []
        while self._is_full():
            found += self._split()
        return found

    def _decide_whether_speech(self, start: int) -> list[Endpoint]:
        if self._pause is None:
            self._begun = self.position - start >= self.rule.min_speech_ms * SAMPLE_RATE_HZ // 1000
            return [Began(start)] if self._begun else []
        most = frames_of(self.rule.min_silence_ms)
        if self._frame - self._pause >= min(most, self.rule.endpoint_frames or most):
            self._start = self._pause = None
        return []

    def _decide_in_pause(self, start: int, pause: int) -> list[Endpoint]:
        lasted = self._frame - pause
        endpoint = self.rule.endpoint_frames
        end = pause * FRAME_SAMPLES
        shortest = min(self.rule.min_utterance_ms * SAMPLE_RATE_HZ // 1000, self.rule.max_utterance_samples)
        over = endpoint is not None and self._lasted_frames(start, pause) >= endpoint
        if over and self.position - start >= shortest:
            return self._end(end, self.position, "silence")
        if endpoint is None and self._is_full():
            return self._end(end, self.position, "max_length")
        if lasted == self.rule.tail_frames and end > start:
            return [Paused(self._spoken(end, self.position))]
        return []

    def _lasted_frames(self, start: int, pause: int) -> int:
        """Of the pause so far, counted from where speech faded."""
        lasted, first = self._frame - pause, start // FRAME_SAMPLES
        if pause <= first:
            return lasted
        levels: list[float] = []
        if lasted >= _CLOSURE_FRAMES:
            levels.append(_SURE)
        if pause * FRAME_SAMPLES - start >= _FADING_FROM_SAMPLES:
            levels.append(_FADING)
        threshold, before = self.rule.threshold, self._heard[pause - 1 - first]
        return lasted + sum(before < threshold + level * (1.0 - threshold) for level in levels)

    @property
    def _max_frames(self) -> int:
        return max(2 * CUT_WIDTH_FRAMES, self.rule.max_utterance_samples // FRAME_SAMPLES)

    def _is_full(self) -> bool:
        return len(self._heard) >= self._max_frames

    def _split(self) -> list[Endpoint]:
        """End the open utterance at its least speech-like moment; the rest goes on as another."""
        assert self._start is not None
        first = self._start // FRAME_SAMPLES
        most = self._max_frames
        best = min(
            range(most // 2, most - CUT_WIDTH_FRAMES + 1),
            key=lambda i: sum(self._heard[i : i + CUT_WIDTH_FRAMES]),
        )
        cut = goes_on_at = first + best + CUT_WIDTH_FRAMES // 2
        tail_end = cut
        for begin, end in self._pauses:
            if begin <= cut < end:
                cut, goes_on_at = begin, end
                tail_end = min(begin + self.rule.tail_frames, end)
        spoken = self._spoken(cut * FRAME_SAMPLES, tail_end * FRAME_SAMPLES, cut=cut == goes_on_at)
        heard = self._heard[goes_on_at - first :]
        pauses = [pause for pause in self._pauses if pause[0] >= goes_on_at]
        self._open(goes_on_at * FRAME_SAMPLES, begun=True)
        self._heard, self._pauses = heard, pauses
        return [Ended(spoken, "max_length", goes_on=True)]

    def _end(self, end: int, at: int, reason: EndReason, *, goes_on: bool = False) -> list[Endpoint]:
        assert self._start is not None
        said = end > self._start
        ended: list[Endpoint] = [Ended(self._spoken(end, at), reason, goes_on) if said else Faded()]
        self._start, self._pause, self._begun = None, None, False
        self._heard, self._pauses = [], []
        return ended

    def _spoken(self, end: int, at: int, *, cut: bool = False) -> Spoken:
        """What was said up to sample `end`, of what has been received up to `at`."""
        assert self._start is not None
        tail = self.rule.tail_frames * FRAME_SAMPLES
        edges = [self._start]
        for pause_begin, pause_end in self._pauses:
            if pause_end * FRAME_SAMPLES < end:
                edges += [pause_begin * FRAME_SAMPLES, pause_end * FRAME_SAMPLES]
        edges.append(end)
        regions = [self._region(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        if cut:
            last = regions[-1]
            regions[-1] = Region(last.start, last.end, last.probability, cut=True)
        return Spoken(self._start, end, min(end + tail, at), tuple(regions))

    def _region(self, start: int, end: int) -> Region:
        assert self._start is not None
        first = self._start // FRAME_SAMPLES
        inside = self._heard[start // FRAME_SAMPLES - first : max(-(-end // FRAME_SAMPLES) - first, 1)]
        return Region(start, end, sum(inside) / len(inside) if inside else self.rule.threshold)


def judge_all(endpointer: Endpointer, probabilities: Iterable[float]) -> list[Endpoint]:
    return [endpoint for p in probabilities for endpoint in endpointer.judge(p)]
