"""Transcribing a recording for a caller: source and wishes in, events and a Transcript out.

The core blocks, so each transcription has a thread; the event loop only passes events on. Closing
the event stream, or cancelling the task that reads it, stops the decode.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Hashable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from voiceforge.errors import Cancelled, InvalidRequest, ShuttingDown
from voiceforge.infra.fetch.base import Fetcher
from voiceforge.services.access import OWNER, Caller, Scope
from voiceforge.services.bookings import Accounts, Heard, NoAccounts
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.flights import Flights, ended
from voiceforge.services.models import Models
from voiceforge.services.recordings import (
    AudioBytes,
    AudioFile,
    LocalSource,
    Source,
    UrlSource,
    content_of,
    file_digest,
)
from voiceforge.services.result_cache import CacheUse, ResultCache
from voiceforge.services.thread_run import GoOn, ThreadRun
from voiceforge.services.work_threads import Closed, WorkThreads
from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.engines.base import Capabilities
from voiceforge.speech.engines.tickets import Priority, Ticket
from voiceforge.speech.formats import FORMATS, render
from voiceforge.speech.formats.json import native_document, segment_document
from voiceforge.speech.formats.subtitles import SubtitleOptions
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.batch import transcribe
from voiceforge.speech.pipeline.checkpoints import CHUNK_S, Chunk, WorkEvent, fingerprint
from voiceforge.speech.pipeline.listen import AudioSource, Listener, ListenEvent, listen_options
from voiceforge.speech.pipeline.plan import make_plan
from voiceforge.speech.transcript.events import Finished, SegmentReady, TranscribeEvent
from voiceforge.speech.transcript.types import ModelRef, Segment, Transcript
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import Metrics

_TIMED_TEXT = frozenset({"srt", "vtt"})

T = TypeVar("T")
E = TypeVar("E")
_Pipeline = Callable[[Iterator[ListenEvent], Ticket, Aligner | None, TranscribeOptions], Iterator[E]]

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class TranscribeRequest:
    """model None: the default one. caller: whose share of the queue this takes, and whose earlier results it
    may have. deadline_s: from when recognition can begin; what is not done by then fails. door: the
    surface it came by; None: it is on nobody's account."""

    source: Source
    options: TranscribeOptions
    model: str | None = None
    priority: Priority = Priority.INTERACTIVE
    caller: Caller = OWNER
    cache: CacheUse = CacheUse.NORMAL
    deadline_s: float | None = None
    door: str | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    body: str
    media_type: str


class Transcriptions:
    """Args:
    listener: opens recordings; closed with this service.
    aligner: makes what finds word times; called once, on first use.
    fetcher: makes the fetcher, called once; None where fetching URLs is switched off.
    results: None: every request is worked on by itself.
    recipe: what else changes a result, alike for all requests: the program's version.
    """

    def __init__(
        self,
        *,
        models: Models,
        engines: EngineRoom,
        listener: Listener,
        aligner: Callable[[], Aligner | None],
        fetcher: Callable[[], Fetcher] | None,
        subtitles: SubtitleOptions,
        metrics: Metrics,
        temp_dir: Path,
        max_threads: int,
        results: ResultCache | None = None,
        recipe: str = "",
    ) -> None:
        self._models = models
        self._engines = engines
        self._listener = listener
        self._make_aligner = aligner
        self._aligner: Aligner | None = None
        self._aligner_lock = threading.Lock()
        self._make_fetcher = fetcher
        self._fetcher: Fetcher | None = None
        self._subtitles = subtitles
        self._metrics = metrics
        self._temp_dir = temp_dir
        self._results = results
        self._recipe = recipe
        self._flights = Flights()
        self._accounts: Accounts = NoAccounts()
        # One more than may be admitted: it tells who comes too late, who would wait in silence otherwise.
        self._threads = WorkThreads(max_threads + 1, "transcribe")

    def keep_accounts(self, accounts: Accounts) -> None:
        """From now on what is transcribed is booked, and refused where nothing is left."""
        self._accounts = accounts

    def check(self, caller: Caller, model: str | None, options: TranscribeOptions) -> str:
        """Refuse early what is bound to fail, before any upload is read; returns the model's id.

        Raises:
            PermissionDenied, ModelNotFound, ModelNotInstalled, UnsupportedOption, QuotaExceeded.
        """
        caller.needs(Scope.TRANSCRIBE)
        self._accounts.check(caller)
        model_id = self._models.resolve(model)
        caller.check_model(model_id)
        loaded = self._engines.loaded().get(model_id)
        if loaded is not None:  # then its files were there, and nobody waits for the disk to say so again
            capabilities: Capabilities | None = loaded.capabilities
        else:
            capabilities = self._models.capabilities(self._models.require_installed(model))
        if capabilities is not None:
            make_plan(options, capabilities, frozenset())
        return model_id

    def timed_options(self, options: TranscribeOptions, fmt: str) -> bool:
        """Whether a format is laid out by word times and so wants `words`."""
        return fmt in _TIMED_TEXT or options.words

    def formats(self) -> tuple[str, ...]:
        return tuple(FORMATS)

    def media_type(self, fmt: str) -> str:
        return FORMATS[fmt].media_type

    def extension(self, fmt: str) -> str:
        """What files in this format are called, without the dot."""
        return FORMATS[fmt].extension

    def document(self, transcript: Transcript) -> dict[str, Any]:
        """The native result as plain values ready for JSON."""
        return native_document(transcript)

    def segment_documents(self, segments: Sequence[Segment]) -> list[dict[str, Any]]:
        """As they stand in the native result."""
        return [segment_document(segment) for segment in segments]

    def render(self, transcript: Transcript, fmt: str, *, words: bool = False) -> Rendered:
        """The document in one of `formats()`.

        Raises:
            UnsupportedOption: there is no such format.
        """
        body = render(transcript, fmt, words=words, subtitles=self._subtitles)
        return Rendered(body, FORMATS[fmt].media_type)

    @contextlib.asynccontextmanager
    async def fetched(self, source: Source) -> AsyncIterator[LocalSource]:
        """The source where it is here, else a file that is gone afterwards.

        Raises:
            UrlRefused, UpstreamFailed, DeadlineExceeded
            InvalidRequest: fetching is switched off.
        """
        if not isinstance(source, UrlSource):
            yield source
            return
        if self._make_fetcher is None:
            raise InvalidRequest("transcribing from a URL is switched off on this server", field="url")
        with tempfile.TemporaryDirectory(dir=self._temp_dir, prefix="fetch-") as folder:
            target = Path(folder) / "audio"
            if self._fetcher is None:
                self._fetcher = self._make_fetcher()
            await self._fetcher.fetch(source.url, target)
            yield target

    async def recall(
        self, request: TranscribeRequest, shape: Hashable, make: Callable[[Transcript], T]
    ) -> T | None:
        """What `make` gives for an earlier result of an identical request; None where there is none, or where
        the recording would have to be fetched or read first. Counted where there is one.

        Args:
            shape: equal wherever `make` gives the same for the same transcript.
        """
        results, source = self._results, request.source
        if (
            results is None
            or request.cache is not CacheUse.NORMAL
            or not results.serves(request.options)
            or not isinstance(source, (AudioBytes, AudioFile))
        ):
            return None
        started = time.perf_counter()
        request.caller.needs(Scope.TRANSCRIBE)
        self._accounts.check(request.caller)
        model = self._model_ref(self._models.resolve(request.model))
        request.caller.check_model(model.id)
        key = results.key(request.caller.tenant, source.sha256, model, request.options)
        found = await results.find_as(key, shape, lambda transcript: (transcript.duration, make(transcript)))
        if found is None:
            return None
        results.count("hit")
        duration_s, made = found
        self._book(request, model.id, duration_s, started, cached=True)
        return made

    def _book(
        self, request: TranscribeRequest, model_id: str, audio_s: float, started: float, *, cached: bool
    ) -> None:
        if request.door is not None:
            self._accounts.book(
                Heard(
                    caller=request.caller,
                    door=request.door,
                    model=model_id,
                    work_class=request.priority.name.lower(),
                    audio_s=audio_s,
                    latency_s=time.perf_counter() - started,
                    cached=cached,
                )
            )

    async def transcribe(self, request: TranscribeRequest) -> Transcript:
        """Run to the end.

        Raises:
            VoiceForgeError: whatever stopped it.
        """
        async with contextlib.aclosing(self.events(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.transcript
        raise Cancelled("the transcription was cancelled")

    async def events(self, request: TranscribeRequest) -> AsyncGenerator[TranscribeEvent, None]:
        """Progress and segments as they come, then one Finished. An identical request of the same tenant is
        not worked on twice: an earlier result is told at once, one in progress is shared."""
        model_id, started = self.check(request.caller, request.model, request.options), time.perf_counter()
        async with self.fetched(request.source) as source:
            if self._results is None or not _cacheable(request, self._results):
                events = self._run(request, model_id, source, transcribe)
            else:
                events = self._run_once(request, model_id, source, self._results)
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, Finished):
                        done = event.transcript
                        cached = done.cached_at is not None
                        self._book(request, done.model.id, done.duration, started, cached=cached)
                    yield event

    async def _run_once(
        self, request: TranscribeRequest, model_id: str, source: LocalSource, results: ResultCache
    ) -> AsyncGenerator[TranscribeEvent, None]:
        sha256 = await _digest(source)
        key = results.key(request.caller.tenant, sha256, self._model_ref(model_id), request.options)
        if request.cache is CacheUse.NORMAL and (found := await results.find(key)) is not None:
            results.count("hit")
            for told in _events_of(found):
                yield told
            return
        flight = (key, request.priority, request.deadline_s)
        results.count("shared" if flight in self._flights else "miss")
        events = self._flights.events(
            flight,
            lambda: self._run(request, model_id, source, transcribe),
            lambda transcript: self._keep(request, sha256, transcript, results),
            lends=not isinstance(source, AudioBytes),
        )
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def _keep(
        self, request: TranscribeRequest, sha256: bytes, transcript: Transcript, results: ResultCache
    ) -> None:
        # Under the model that did it: another may have taken its place since the request came.
        await results.keep(
            results.key(request.caller.tenant, sha256, transcript.model, request.options), transcript
        )

    async def work(
        self, request: TranscribeRequest, *, done: Sequence[Chunk] = ()
    ) -> AsyncGenerator[WorkEvent, None]:
        """As `events`, for who keeps what was done so far: chunks are told too, and an earlier run's are not
        worked on again. An earlier result is told at once, without chunks; nothing is shared in progress.

        Args:
            done: what `ChunkDone` told of the same recording, in order. From the first that does not fit, or
                that has another `fingerprint`, none is used; chunks told then take their places.
        """
        model_id = self.check(request.caller, request.model, request.options)
        results = self._results if self._results and _cacheable(request, self._results) else None
        async with self.fetched(request.source) as source:
            sha256 = await _digest(source) if results is not None else b""
            if results is not None:
                key = results.key(request.caller.tenant, sha256, self._model_ref(model_id), request.options)
                if request.cache is CacheUse.NORMAL and (found := await results.find(key)) is not None:
                    results.count("hit")
                    for told in _events_of(found):
                        yield told
                    return
                results.count("miss")
            run = self._run(request, model_id, source, _in_chunks(done, self._recipe), survey=True)
            async with contextlib.aclosing(run) as events:
                async for event in events:
                    if results is not None and isinstance(event, Finished):
                        try:
                            await self._keep(request, sha256, event.transcript, results)
                        except Exception as error:  # its message may quote the text
                            _log.error("result not kept", problem=type(error).__name__)
                    yield event

    def fingerprint(self, request: TranscribeRequest) -> str:
        """What chunks of this request carry while its model is the one of now.

        Raises:
            ModelNotFound, ModelNotInstalled.
        """
        model = self._model_ref(self._models.resolve(request.model))
        return fingerprint(request.options, model, self._recipe)

    async def _run(
        self,
        request: TranscribeRequest,
        model_id: str,
        source: LocalSource,
        pipeline: _Pipeline[E],
        *,
        survey: bool = False,
    ) -> AsyncGenerator[E, None]:
        content = content_of(source)
        run = ThreadRun(lambda go_on: self._steps(request, model_id, content, pipeline, survey, go_on))
        work = self._start(run)
        try:
            while (event := await run.next_event()) is not None:
                yield event
            if work.cancelled():  # by `close`, before it began
                raise ShuttingDown("the server is shutting down", retry_after_s=5)
            await work  # raises what stopped it
        finally:
            run.cancel()
            # The thread still reads the file: it must end before the file goes.
            await ended(work)

    def _steps(
        self,
        request: TranscribeRequest,
        model_id: str,
        content: AudioSource,
        pipeline: _Pipeline[E],
        survey: bool,
        go_on: GoOn,
    ) -> Generator[E, None, None]:
        """Runs in the thread."""
        started = time.perf_counter()
        ticket = self._engines.open(
            model_id, request.priority, request.caller.tenant, deadline_s=request.deadline_s
        )
        try:
            options = request.options
            wish = listen_options(options, ticket.capabilities, survey=survey)
            recording = self._listener.open(content, wish)
            with contextlib.closing(recording):
                go_on(ticket.close, recording.cancel)  # it may have waited for the model
                for event in pipeline(recording.events(), ticket, self.shared_aligner(), options):
                    if isinstance(event, Finished):
                        self._metrics.observe_transcription(
                            model=model_id,
                            audio_s=event.transcript.duration,
                            processing_s=time.perf_counter() - started,
                        )
                    yield event
        finally:
            ticket.close()

    def _model_ref(self, model_id: str) -> ModelRef:
        queue = self._engines.loaded().get(model_id)
        if queue is not None:
            return queue.model
        return ModelRef(model_id, self._models.source(model_id).installed.files.revision)

    def _start(self, run: ThreadRun[Any]) -> asyncio.Future[None]:
        try:
            work = self._threads.start(run.work)
        except Closed as error:
            raise ShuttingDown("the server is shutting down", retry_after_s=5) from error
        work.add_done_callback(run.ended)
        return work

    def preload(self, model_id: str) -> None:
        """Load a model and what every request needs beside it now. Blocks."""
        self._engines.queue(model_id)
        self.preload_stages()

    def preload_stages(self) -> None:
        """Make ready what is not the model's. Blocks."""
        self._listener.preload()
        self.shared_aligner()

    def shared_aligner(self) -> Aligner | None:
        """What finds word times, made on first use; None where nothing does. Blocks."""
        with self._aligner_lock:
            if self._aligner is None:
                self._aligner = self._make_aligner()
            return self._aligner

    def close(self) -> None:
        """Wait for what runs; close the engines first, or that may take long."""
        self._threads.close()
        self._listener.close()


def _cacheable(request: TranscribeRequest, results: ResultCache) -> bool:
    return request.cache is not CacheUse.NONE and results.serves(request.options)


async def _digest(source: LocalSource) -> bytes:
    return await asyncio.to_thread(file_digest, source) if isinstance(source, Path) else source.sha256


def _events_of(transcript: Transcript) -> list[TranscribeEvent]:
    return [*map(SegmentReady, transcript.segments), Finished(transcript)]


def _in_chunks(done: Sequence[Chunk], recipe: str) -> _Pipeline[WorkEvent]:
    def pipeline(
        heard: Iterator[ListenEvent], ticket: Ticket, aligner: Aligner | None, options: TranscribeOptions
    ) -> Iterator[WorkEvent]:
        return transcribe(heard, ticket, aligner, options, done=done, chunk_s=CHUNK_S, recipe=recipe)

    return pipeline
