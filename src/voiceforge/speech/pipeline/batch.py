"""Windows of a recording → events, ending in the Transcript: recognise, settle, put in order.

Everything streams: windows are recognised while later audio is still being decoded, and no more
audio is kept than the windows in flight hold. Blocking; runs in a thread of the caller's.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from time import perf_counter

from voiceforge.errors import Cancelled
from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import Hypothesis
from voiceforge.speech.engines.tickets import Ticket
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.listen import Ended, Heard, ListenEvent, Opened
from voiceforge.speech.pipeline.plan import Plan, make_plan
from voiceforge.speech.pipeline.trust import Account
from voiceforge.speech.pipeline.window_result import WindowSettler
from voiceforge.speech.transcript.events import Finished, Progress, SegmentReady, TranscribeEvent
from voiceforge.speech.transcript.types import Language, Segment, Transcript, TranscriptWarning

_BATCHES_AHEAD = 2
_LOWEST_RATE_HZ = 8_000  # the telephone's; below it consonants are gone


@dataclass(frozen=True, slots=True)
class _InFlight:
    audio: WindowAudio
    future: Future[Hypothesis]


def transcribe(
    heard: Iterator[ListenEvent], ticket: Ticket, aligner: Aligner | None, options: TranscribeOptions
) -> Iterator[TranscribeEvent]:
    """Transcribe a recording that is being listened to; the last event is `Finished`.

    Args:
        heard: its events, none taken yet, with windows as `listen_options` wants them for this ticket.
        ticket: a place in the queue of the model that is to do it; the caller closes it. Closing
            it from another thread ends the iteration.
        aligner: finds word times; None: they are estimated where the engine gives none.

    Raises:
        InvalidAudio: the recording turned out unreadable, too short or too long.
        UnsupportedOption: the model cannot do what `options` ask.
        EngineFailed: recognition broke.
        Cancelled: the ticket was closed.
    """
    aligned = aligner.languages if aligner is not None else frozenset()
    plan = make_plan(options, ticket.capabilities, aligned)
    return _Run(heard, ticket, aligner, options, plan).events()


class _Run:
    """State of one transcription."""

    def __init__(
        self,
        heard: Iterator[ListenEvent],
        ticket: Ticket,
        aligner: Aligner | None,
        options: TranscribeOptions,
        plan: Plan,
    ) -> None:
        self._heard = heard
        self._ticket = ticket
        self._options = options
        self._plan = plan
        self._account = Account()
        self._settler = WindowSettler(ticket, plan, aligner, self._account)
        self._in_flight: deque[_InFlight] = deque()
        capabilities = ticket.capabilities
        self._most_in_flight = _BATCHES_AHEAD * capabilities.max_batch_rows * capabilities.parallel_decodes
        self._segments: list[Segment] = []
        self._settled_s = self._decoded_s = self._progress_s = 0.0
        self._language_mass: dict[str, float] = defaultdict(float)  # speech seconds × probability
        self._language_s: dict[str, float] = defaultdict(float)

    def events(self) -> Iterator[TranscribeEvent]:
        started = perf_counter()
        opened = next(self._heard)
        assert isinstance(opened, Opened)
        last: ListenEvent = opened
        total_s = opened.info.duration_s
        try:
            for last in self._heard:
                if self._ticket.cancelled:
                    raise Cancelled("the transcription was cancelled")
                if isinstance(last, Heard):
                    self._take(last)
                    yield from self._settle_ready(total_s)
                    yield from self._progress(total_s)
            while self._in_flight:
                yield from self._settle_next()
                yield from self._progress(total_s)
        except CancelledError as error:
            raise Cancelled("the transcription was cancelled") from error
        assert isinstance(last, Ended)
        if self._split:
            self._segments.sort(key=lambda segment: (segment.start, segment.channel or 0))
            self._segments = [replace(segment, id=i) for i, segment in enumerate(self._segments)]
            yield from map(SegmentReady, self._segments)
        if self._progress_s < self._decoded_s:
            yield Progress(self._decoded_s, total_s)
        yield Finished(self._transcript(opened, last, perf_counter() - started))

    @property
    def _split(self) -> bool:
        return self._options.channels == "split"

    def _take(self, heard: Heard) -> None:
        self._settled_s = heard.settled_samples / SAMPLE_RATE_HZ
        self._decoded_s = heard.decoded_s
        for audio in heard.windows:
            future = self._ticket.submit(audio.samples, self._plan.decode)
            self._in_flight.append(_InFlight(audio, future))

    def _settle_ready(self, total_s: float | None) -> Iterator[TranscribeEvent]:
        """What is done, and as much more as keeps the windows in flight bounded."""
        while self._in_flight and (
            self._in_flight[0].future.done() or len(self._in_flight) > self._most_in_flight
        ):
            yield from self._settle_next()
            yield from self._progress(total_s)

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

    def _progress(self, total_s: float | None) -> Iterator[Progress]:
        """How far everything is done, on the channel that is least so; nothing where that is no news."""
        waiting_s = min((e.audio.window.start / SAMPLE_RATE_HZ for e in self._in_flight), default=math.inf)
        done_s = min(self._settled_s, waiting_s, self._decoded_s)
        if done_s > self._progress_s:
            self._progress_s = done_s
            yield Progress(done_s, total_s)

    def _transcript(self, opened: Opened, ended: Ended, processing_s: float) -> Transcript:
        duration = self._decoded_s
        return Transcript(
            text=" ".join(segment.text for segment in self._segments),
            segments=tuple(self._segments),
            duration=duration,
            language=self._language(),
            coverage=self._account.coverage(),
            model=self._ticket.model,
            task=self._options.task,
            removed=tuple(self._account.removed),
            warnings=self._warnings(opened, ended),
            processing_s=processing_s,
            rtf=processing_s / duration if duration else 0.0,
            channels=opened.channel_count,
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

    def _warnings(self, opened: Opened, ended: Ended) -> tuple[TranscriptWarning, ...]:
        found = list(self._plan.warnings)
        if all(level.silent for level in ended.levels):
            found.append(
                TranscriptWarning("silence", "the recording is silent or nearly so (RMS below 0.001)")
            )
        if self._account.speech_s == 0.0:
            found.append(TranscriptWarning("no_speech", "no speech was found"))
        elif not self._segments:
            found.append(TranscriptWarning("no_speech", "no speech was found that could be recognised"))
        if any(level.clipped for level in ended.levels):
            found.append(TranscriptWarning("clipping", "the recording is clipped; words may be lost"))
        rate_hz = opened.info.sample_rate_hz
        if rate_hz < _LOWEST_RATE_HZ:
            found.append(
                TranscriptWarning(
                    "sample_rate_low", f"at {rate_hz} Hz half of what makes speech clear is lost"
                )
            )
        if ended.truncated:
            found.append(
                TranscriptWarning("truncated", "the file ends in the middle; only its first part was read")
            )
        if self._plan.word_times == "estimate":
            found.append(TranscriptWarning("words_estimated", "word times are estimated for this language"))
        return tuple(found)
