"""A recording → events, ending in the Transcript: decode, find speech, pack, recognise, settle.

Everything streams: windows are recognised while later audio is still being decoded, and no more
audio is kept than the windows in flight hold. Blocking; runs in a thread of the caller's.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from time import perf_counter

from voiceforge.errors import Cancelled
from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.audio.decode import AudioStream
from voiceforge.speech.audio.level import LevelMeter, lifted
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import Hypothesis
from voiceforge.speech.engines.tickets import Ticket
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.channel import ChannelFeed, WindowAudio
from voiceforge.speech.pipeline.plan import Plan, make_plan
from voiceforge.speech.pipeline.trust import Account
from voiceforge.speech.pipeline.window_result import WindowSettler
from voiceforge.speech.pipeline.windows import PackingRule
from voiceforge.speech.transcript.events import Finished, Progress, SegmentReady, TranscribeEvent
from voiceforge.speech.transcript.types import Language, Segment, Transcript, TranscriptWarning
from voiceforge.speech.vad.regions import RegionDetector
from voiceforge.speech.vad.silero import SileroModel, SpeechProbabilities

_BATCHES_AHEAD = 2
_LOWEST_RATE_HZ = 8_000  # the telephone's; below it consonants are gone


@dataclass(frozen=True, slots=True)
class Stages:
    """The parts every request shares. `aligner` None: word times are estimated."""

    vad: SileroModel
    aligner: Aligner | None = None


@dataclass(frozen=True, slots=True)
class _InFlight:
    audio: WindowAudio
    future: Future[Hypothesis]


def transcribe(
    stream: AudioStream, ticket: Ticket, stages: Stages, options: TranscribeOptions
) -> Iterator[TranscribeEvent]:
    """Transcribe what `stream` decodes; the last event is `Finished`.

    Args:
        stream: open, at its start; the caller closes it.
        ticket: a place in the queue of the model that is to do it; the caller closes it. Closing
            it from another thread ends the iteration.

    Raises:
        InvalidAudio: the recording turned out unreadable, too short or too long.
        UnsupportedOption: the model cannot do what `options` ask.
        EngineFailed: recognition broke.
        Cancelled: the ticket was closed.
    """
    aligned = stages.aligner.languages if stages.aligner is not None else frozenset()
    plan = make_plan(options, ticket.capabilities, aligned)
    return _Run(stream, ticket, stages, options, plan).events()


class _Run:
    """State of one transcription."""

    def __init__(
        self, stream: AudioStream, ticket: Ticket, stages: Stages, options: TranscribeOptions, plan: Plan
    ) -> None:
        self._stream = stream
        self._ticket = ticket
        self._options = options
        self._plan = plan
        self._account = Account()
        self._settler = WindowSettler(ticket, plan, stages.aligner, self._account)
        self._meter = LevelMeter(stream.channel_count)
        self._feeds = [self._feed(channel, stages) for channel in range(stream.channel_count)]
        self._in_flight: deque[_InFlight] = deque()
        capabilities = ticket.capabilities
        self._most_in_flight = _BATCHES_AHEAD * capabilities.max_batch_rows * capabilities.parallel_decodes
        self._segments: list[Segment] = []
        self._progress_s = 0.0
        self._language_mass: dict[str, float] = defaultdict(float)  # speech seconds × probability
        self._language_s: dict[str, float] = defaultdict(float)

    def events(self) -> Iterator[TranscribeEvent]:
        started = perf_counter()
        try:
            for block in self._stream.blocks():
                self._meter.update(block)
                if self._ticket.cancelled:
                    raise Cancelled("the transcription was cancelled")
                for feed, samples in zip(self._feeds, block, strict=True):
                    self._submit(feed.push(samples))
                yield from self._settle_ready()
                yield from self._progress()
            for feed in self._feeds:
                self._submit(feed.flush())
            while self._in_flight:
                yield from self._settle_next()
                yield from self._progress()
        except CancelledError as error:
            raise Cancelled("the transcription was cancelled") from error
        if self._split:
            self._segments.sort(key=lambda segment: (segment.start, segment.channel or 0))
            self._segments = [replace(segment, id=i) for i, segment in enumerate(self._segments)]
            yield from map(SegmentReady, self._segments)
        if self._progress_s < self._stream.decoded_s:
            yield Progress(self._stream.decoded_s, self._stream.info.duration_s)
        yield Finished(self._transcript(perf_counter() - started))

    @property
    def _split(self) -> bool:
        return self._options.channels == "split"

    def _feed(self, channel: int, stages: Stages) -> ChannelFeed:
        capabilities = self._ticket.capabilities
        longest = int(capabilities.longest_window_s * SAMPLE_RATE_HZ)
        padding = min(self._options.vad.padding_ms * SAMPLE_RATE_HZ // 1000, longest // 4)
        longest -= 2 * padding
        target = min(int(capabilities.best_window_s * SAMPLE_RATE_HZ), longest)
        return ChannelFeed(
            channel,
            probabilities=SpeechProbabilities(stages.vad),
            detector=RegionDetector(self._options.vad, target),
            rule=PackingRule(target_samples=target, padding_samples=padding),
        )

    def _submit(self, windows: list[WindowAudio]) -> None:
        for audio in windows:
            # Only what is speech is lifted: lifted noise would pass for speech.
            if self._options.normalize_peak:
                audio = replace(audio, samples=lifted(audio.samples))
            future = self._ticket.submit(audio.samples, self._plan.decode)
            self._in_flight.append(_InFlight(audio, future))

    def _settle_ready(self) -> Iterator[TranscribeEvent]:
        """What is done, and as much more as keeps the windows in flight bounded."""
        while self._in_flight and (
            self._in_flight[0].future.done() or len(self._in_flight) > self._most_in_flight
        ):
            yield from self._settle_next()
            yield from self._progress()

    def _settle_next(self) -> Iterator[TranscribeEvent]:
        """Settle the oldest window. Segments of split channels wait until all can be put in order."""
        done = self._in_flight.popleft()
        hypothesis = done.future.result()
        segments = self._settler.settle(done.audio, hypothesis)
        if hypothesis.language is not None and segments:
            seconds = done.audio.window.speech_samples / SAMPLE_RATE_HZ
            self._language_s[hypothesis.language.code] += seconds
            self._language_mass[hypothesis.language.code] += seconds * hypothesis.language.probability
        for segment in segments:
            numbered = replace(
                segment, id=len(self._segments), channel=segment.channel if self._split else None
            )
            self._segments.append(numbered)
            if not self._split:
                yield SegmentReady(numbered)

    def _progress(self) -> Iterator[Progress]:
        """How far everything is done, on the channel that is least so; nothing where that is no news."""
        settled = min(feed.settled_samples for feed in self._feeds)
        waiting = min((entry.audio.window.start for entry in self._in_flight), default=settled)
        done_s = min(settled / SAMPLE_RATE_HZ, waiting / SAMPLE_RATE_HZ, self._stream.decoded_s)
        if done_s > self._progress_s:
            self._progress_s = done_s
            yield Progress(done_s, self._stream.info.duration_s)

    def _transcript(self, processing_s: float) -> Transcript:
        duration = self._stream.decoded_s
        return Transcript(
            text=" ".join(segment.text for segment in self._segments),
            segments=tuple(self._segments),
            duration=duration,
            language=self._language(),
            coverage=self._account.coverage(),
            model=self._ticket.model,
            task=self._options.task,
            removed=tuple(self._account.removed),
            warnings=self._warnings(),
            processing_s=processing_s,
            rtf=processing_s / duration if duration else 0.0,
            channels=self._stream.channel_count,
        )

    def _language(self) -> Language | None:
        """The language with the most speech; the one that was given or is the model's only one as it is."""
        fixed = self._plan.decode.language
        if fixed is not None:
            return Language(fixed, 1.0)
        if not self._language_mass:
            return None
        code = max(self._language_mass, key=self._language_mass.__getitem__)
        return Language(code, self._language_mass[code] / self._language_s[code])

    def _warnings(self) -> tuple[TranscriptWarning, ...]:
        found = list(self._plan.warnings)
        if all(level.silent for level in self._meter.levels):
            found.append(
                TranscriptWarning("silence", "the recording is silent or nearly so (RMS below 0.001)")
            )
        if self._account.speech_s == 0.0:
            found.append(TranscriptWarning("no_speech", "no speech was found"))
        elif not self._segments:
            found.append(TranscriptWarning("no_speech", "no speech was found that could be recognised"))
        if any(level.clipped for level in self._meter.levels):
            found.append(TranscriptWarning("clipping", "the recording is clipped; words may be lost"))
        rate_hz = self._stream.info.sample_rate_hz
        if rate_hz < _LOWEST_RATE_HZ:
            found.append(
                TranscriptWarning(
                    "sample_rate_low", f"at {rate_hz} Hz half of what makes speech clear is lost"
                )
            )
        if self._stream.truncated:
            found.append(
                TranscriptWarning("truncated", "the file ends in the middle; only its first part was read")
            )
        if self._plan.word_times == "estimate":
            found.append(TranscriptWarning("words_estimated", "word times are estimated for this language"))
        return tuple(found)
