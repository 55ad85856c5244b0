"""Windows of a recording → events, ending in the Transcript: recognise, settle, put in order.

Everything streams: windows are recognised while later audio is still being decoded, and no more
audio is kept than the windows in flight hold. Blocking; runs in a thread of the caller's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from time import perf_counter
from typing import overload

from voiceforge.errors import Cancelled
from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import Hypothesis
from voiceforge.speech.engines.tickets import Ticket
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.checkpoints import (
    Chunk,
    ChunkDone,
    ChunkRecorder,
    LanguageMass,
    Replay,
    WorkEvent,
    fingerprint,
)
from voiceforge.speech.pipeline.forecast import Forecast, window_s
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


@overload
def transcribe(
    heard: Iterator[ListenEvent], ticket: Ticket, aligner: Aligner | None, options: TranscribeOptions
) -> Iterator[TranscribeEvent]: ...


@overload
def transcribe(
    heard: Iterator[ListenEvent],
    ticket: Ticket,
    aligner: Aligner | None,
    options: TranscribeOptions,
    *,
    done: Sequence[Chunk] = (),
    chunk_s: float,
    recipe: str = "",
) -> Iterator[WorkEvent]: ...


def transcribe(
    heard: Iterator[ListenEvent],
    ticket: Ticket,
    aligner: Aligner | None,
    options: TranscribeOptions,
    *,
    done: Sequence[Chunk] = (),
    chunk_s: float | None = None,
    recipe: str = "",
) -> Iterator[WorkEvent]:
    """Transcribe a recording that is being listened to; the last event is `Finished`.

    Args:
        heard: its events, none taken yet, with windows as `listen_options` wants them for this ticket.
        ticket: a place in the queue of the model that is to do it; the caller closes it. Closing
            it from another thread ends the iteration.
        aligner: finds word times; None: they are estimated where the engine gives none.
        done: the chunks of an earlier run on this recording, in order. Their windows are not recognised
            again; their segments come again, and the document is that of an undisturbed run. What comes
            from the first chunk on whose windows are others now, or whose `fingerprint` is another, is done
            anew.
        chunk_s: seconds of windows after which a `ChunkDone` is told, the last windows excepted; None: never.
        recipe: see `fingerprint`.

    Raises:
        InvalidAudio: the recording turned out unreadable, too short or too long.
        UnsupportedOption: the model cannot do what `options` ask.
        EngineFailed: recognition broke.
        Cancelled: the ticket was closed.
    """
    aligned = aligner.languages if aligner is not None else frozenset()
    plan = make_plan(options, ticket.capabilities, aligned)
    own = fingerprint(options, ticket.model, recipe)
    return _Run(heard, ticket, aligner, options, plan, Replay(done, own), own, chunk_s).events()


class _Run:
    """State of one transcription."""

    def __init__(
        self,
        heard: Iterator[ListenEvent],
        ticket: Ticket,
        aligner: Aligner | None,
        options: TranscribeOptions,
        plan: Plan,
        replay: Replay,
        own: str,
        chunk_s: float | None,
    ) -> None:
        self._heard = heard
        self._ticket = ticket
        self._options = options
        self._plan = plan
        self._account = Account()
        self._settler = WindowSettler(ticket, plan, aligner, self._account)
        self._replay = replay
        self._recorder = ChunkRecorder(self._account, own, chunk_s) if chunk_s is not None else None
        self._in_flight: deque[_InFlight] = deque()
        capabilities = ticket.capabilities
        self._most_in_flight = _BATCHES_AHEAD * capabilities.max_batch_rows * capabilities.parallel_decodes
        self._segments: list[Segment] = []
        self._settled_s = self._decoded_s = self._progress_s = self._recognised_s = 0.0
        self._forecast = Forecast(None, None)
        self._languages: dict[str, LanguageMass] = {}
        self._started = 0.0
        self._earlier_s = 0.0

    def events(self) -> Iterator[WorkEvent]:
        self._started = perf_counter()
        opened = next(self._heard)
        assert isinstance(opened, Opened)
        last: ListenEvent = opened
        total_s = opened.info.duration_s
        self._forecast = Forecast(total_s, opened.outline)
        if self._replay.end > 0.0:
            self._progress_s = self._replay.end
            yield Progress(self._progress_s, total_s)
        try:
            for last in self._heard:
                if self._ticket.cancelled:
                    raise Cancelled("the transcription was cancelled")
                if isinstance(last, Heard):
                    yield from self._take(last)
                    yield from self._settle_ready(total_s)
                    yield from self._progress(total_s)
            self._submit(self._replay.release())
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
        yield Finished(self._transcript(opened, last))

    @property
    def _split(self) -> bool:
        return self._options.channels == "split"

    def _take(self, heard: Heard) -> Iterator[SegmentReady]:
        """Have the windows recognised, or find them in what was done before."""
        self._settled_s = heard.settled_samples / SAMPLE_RATE_HZ
        self._decoded_s = heard.decoded_s
        self._forecast.heard(heard.windows, min(self._settled_s, self._decoded_s))
        for audio in heard.windows:
            found = self._replay.hear(audio)
            if isinstance(found, Chunk):
                yield from self._restore(found)
            else:
                self._submit(found)

    def _submit(self, windows: Iterable[WindowAudio]) -> None:
        for audio in windows:
            future = self._ticket.submit(audio.samples, self._plan.decode)
            self._in_flight.append(_InFlight(audio, future))

    def _restore(self, chunk: Chunk) -> Iterator[SegmentReady]:
        totals = chunk.totals
        self._account.restore(totals.speech_s, totals.transcribed_s, chunk.gaps, chunk.removed)
        self._languages = {language.code: language for language in totals.languages}
        self._earlier_s = totals.processing_s
        if self._recorder is not None:
            self._recorder.restored(chunk)
        self._segments += chunk.segments
        if not self._split:
            yield from map(SegmentReady, chunk.segments)

    def _settle_ready(self, total_s: float | None) -> Iterator[WorkEvent]:
        """What is done, and as much more as keeps the windows in flight bounded."""
        while self._in_flight and (
            self._in_flight[0].future.done() or len(self._in_flight) > self._most_in_flight
        ):
            yield from self._settle_next()
            yield from self._progress(total_s)

    def _settle_next(self) -> Iterator[WorkEvent]:
        """Settle the oldest window. Segments of split channels wait until all can be put in order."""
        done = self._in_flight.popleft()
        hypothesis = done.future.result()
        self._recognised_s += window_s(done.audio)
        segments = self._settler.settle(done.audio, hypothesis)
        if hypothesis.language is not None and segments:
            self._heard_in(hypothesis.language, done.audio.window.speech_samples / SAMPLE_RATE_HZ)
        numbered = [
            replace(segment, id=number, channel=segment.channel if self._split else None)
            for number, segment in enumerate(segments, len(self._segments))
        ]
        self._segments += numbered
        if not self._split:
            yield from map(SegmentReady, numbered)
        if self._recorder is not None:
            self._recorder.settled(done.audio, numbered)
            if self._recorder.full:
                languages = tuple(self._languages.values())
                yield ChunkDone(self._recorder.take(self._done_s(), self._processing_s(), languages))

    def _heard_in(self, language: Language, speech_s: float) -> None:
        before = self._languages.get(language.code, LanguageMass(language.code, 0.0, 0.0))
        self._languages[language.code] = LanguageMass(
            language.code, before.speech_s + speech_s, before.mass + speech_s * language.probability
        )

    def _progress(self, total_s: float | None) -> Iterator[Progress]:
        """How far everything is done; nothing where that is no news."""
        done_s = self._done_s()
        if done_s > self._progress_s:
            self._progress_s = done_s
            waiting_s = sum(map(window_s, self._waiting()))
            done = self._forecast.done(self._recognised_s)
            yield Progress(done_s, total_s, done, self._forecast.left(waiting_s))

    def _done_s(self) -> float:
        """Up to where everything is done, on the channel that is least so."""
        waiting_s = min((audio.window.start / SAMPLE_RATE_HZ for audio in self._waiting()), default=math.inf)
        return min(self._settled_s, waiting_s, self._decoded_s)

    def _waiting(self) -> Iterator[WindowAudio]:
        """What was heard and is not done."""
        yield from self._replay.held
        for entry in self._in_flight:
            yield entry.audio

    def _processing_s(self) -> float:
        return self._earlier_s + perf_counter() - self._started

    def _transcript(self, opened: Opened, ended: Ended) -> Transcript:
        duration = self._decoded_s
        processing_s = self._processing_s()
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
        if not self._languages:
            return None
        most = max(self._languages.values(), key=lambda language: language.mass)
        return Language(most.code, most.mass / most.speech_s)

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
