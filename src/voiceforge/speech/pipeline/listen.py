"""A recording → windows of speech: decode, measure, find speech, pack, lift. Knows no engine.

    Listener ─ open(source) ─▶ Recording ─ events() ─▶ Opened, Heard, Heard, …, Ended

The bytes are anybody's, so this half of a transcription can run in another process: what goes in and
what comes out are plain values, and nobody behind a `Listener` can tell which process it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from voiceforge.errors import Cancelled
from voiceforge.speech.audio.decode import AudioInfo, AudioStream, open_audio
from voiceforge.speech.audio.level import ChannelLevel, LevelMeter, lifted
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import Capabilities
from voiceforge.speech.options import AudioLimits, ChannelMode, RawFormat, TranscribeOptions, VadOptions
from voiceforge.speech.pipeline.channel import ChannelFeed, WindowAudio
from voiceforge.speech.pipeline.outline import Outline, survey_speech
from voiceforge.speech.pipeline.windows import PackingRule
from voiceforge.speech.vad.regions import RegionDetector
from voiceforge.speech.vad.silero import SileroModel, SpeechProbabilities

AudioSource = Path | bytes
"""A file here, or what would be in it."""


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """How a recording is to be heard, and for an engine with which windows.

    survey: a long one is looked through first, so that it is known how much is to come.
    """

    longest_window_s: float
    best_window_s: float
    raw: RawFormat | None = None
    channels: ChannelMode = "mix"
    normalize_peak: bool = True
    limits: AudioLimits = field(default_factory=AudioLimits)
    vad: VadOptions = field(default_factory=VadOptions)
    survey: bool = False


def listen_options(
    options: TranscribeOptions, capabilities: Capabilities, *, survey: bool = False
) -> ListenOptions:
    return ListenOptions(
        longest_window_s=capabilities.longest_window_s,
        best_window_s=capabilities.best_window_s,
        raw=options.raw,
        channels=options.channels,
        normalize_peak=options.normalize_peak,
        limits=options.limits,
        vad=options.vad,
        survey=survey,
    )


@dataclass(frozen=True, slots=True)
class Opened:
    """The first event: what the recording is. channel_count: how many channels are heard apart. outline: None
    where none was asked for, or none is to be had."""

    info: AudioInfo
    channel_count: int
    outline: Outline | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """Some more of the recording.

    windows: those that became complete, by channel and time. settled_samples: no window that is still to
    come holds speech from before. decoded_s: how far the recording has been decoded.
    """

    windows: tuple[WindowAudio, ...]
    settled_samples: int
    decoded_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event. levels: one per channel, before any gain. truncated: the file stops, or cannot be
    read, before what it declares."""

    levels: tuple[ChannelLevel, ...]
    truncated: bool


ListenEvent = Opened | Heard | Ended


class Recording(Protocol):
    """One recording that is being listened to; a thread of the caller's does it, but for `cancel`."""

    def events(self) -> Iterator[ListenEvent]:
        """Opened, any number of Heard, then Ended. Once only; nothing is read before the first.

        Raises: InvalidAudio and InvalidRequest as `open_audio` and `AudioStream.blocks` do;
            Cancelled after `cancel`.
        """
        ...

    def cancel(self) -> None:
        """Make `events` end soon. From any thread, at any time."""
        ...

    def close(self) -> None:
        """Let go of the file and of whatever else is held. Idempotent."""
        ...


class Listener(Protocol):
    """Opens recordings. Thread-safe."""

    def open(self, source: AudioSource, options: ListenOptions) -> Recording:
        """Costs nothing yet, and raises nothing."""
        ...

    def preload(self) -> None:
        """Make ready now what the first recording would have to wait for. Blocks."""
        ...

    def close(self) -> None:
        """Let go of everything. Recordings that are open end as if cancelled."""
        ...


def listen_to(
    source: AudioSource | BinaryIO, vad: SileroModel, options: ListenOptions
) -> Generator[ListenEvent, None, None]:
    """Listen to a recording. Raises what `open_audio` and `AudioStream.blocks` raise."""

    def opened() -> AudioStream:
        return open_audio(source, raw=options.raw, channels=options.channels, limits=options.limits)

    outline: Outline | None = None
    if options.survey:
        with opened() as stream:
            outline = survey_speech(stream, vad, options.vad.threshold)
    with opened() as stream:
        yield from listen(stream, vad, options, outline)


def listen(
    stream: AudioStream, vad: SileroModel, options: ListenOptions, outline: Outline | None = None
) -> Iterator[ListenEvent]:
    """Listen to what `stream` decodes; the caller closes it. Raises what `AudioStream.blocks` raises."""
    yield Opened(stream.info, stream.channel_count, outline)
    meter = LevelMeter(stream.channel_count)
    feeds = [_feed(channel, vad, options) for channel in range(stream.channel_count)]

    def heard(windows: list[WindowAudio]) -> Heard:
        settled = min(feed.settled_samples for feed in feeds)
        # Only what is speech is lifted: lifted noise would pass for speech.
        if options.normalize_peak:
            windows = [replace(window, samples=lifted(window.samples)) for window in windows]
        return Heard(tuple(windows), settled, stream.decoded_s)

    for block in stream.blocks():
        meter.update(block)
        windows = [w for feed, samples in zip(feeds, block, strict=True) for w in feed.push(samples)]
        yield heard(windows)
    yield heard([window for feed in feeds for window in feed.flush()])
    yield Ended(meter.levels, stream.truncated)


def _feed(channel: int, vad: SileroModel, options: ListenOptions) -> ChannelFeed:
    longest = int(options.longest_window_s * SAMPLE_RATE_HZ)
    padding = min(options.vad.padding_ms * SAMPLE_RATE_HZ // 1000, longest // 4)
    longest -= 2 * padding
    target = min(int(options.best_window_s * SAMPLE_RATE_HZ), longest)
    return ChannelFeed(
        channel,
        probabilities=SpeechProbabilities(vad),
        detector=RegionDetector(options.vad, target),
        rule=PackingRule(target_samples=target, padding_samples=padding),
    )


class LocalListener:
    """A `Listener` in this process, in the threads of whoever reads the events.

    Args:
        vad: makes the voice detector; called once, on first use.
    """

    def __init__(self, vad: Callable[[], SileroModel] = SileroModel) -> None:
        self._make_vad = vad
        self._vad: SileroModel | None = None
        self._lock = threading.Lock()

    def open(self, source: AudioSource, options: ListenOptions) -> Recording:
        return _LocalRecording(source, options, self._shared_vad)

    def preload(self) -> None:
        self._shared_vad()

    def close(self) -> None:
        """Nothing is held that needs it."""

    def _shared_vad(self) -> SileroModel:
        with self._lock:
            if self._vad is None:
                self._vad = self._make_vad()
            return self._vad


class _LocalRecording:
    def __init__(self, source: AudioSource, options: ListenOptions, vad: Callable[[], SileroModel]) -> None:
        self._source = source
        self._options = options
        self._vad = vad
        self._cancelled = False
        self._events = self._listen()

    def events(self) -> Iterator[ListenEvent]:
        return self._events

    def cancel(self) -> None:
        self._cancelled = True

    def close(self) -> None:
        self._events.close()

    def _listen(self) -> Generator[ListenEvent, None, None]:
        with closing(listen_to(self._source, self._vad(), self._options)) as events:
            for event in events:
                if self._cancelled:
                    raise Cancelled("the transcription was cancelled")
                yield event
