"""The services as the surfaces see them, but what a transcription does is a script of the test's.

No audio is understood and no model is loaded: for tests of what lies in front of the services.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from voiceforge.errors import Cancelled, ModelNotFound, VoiceForgeError
from voiceforge.infra.cache.memory import MemoryCache
from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.services.access import Caller
from voiceforge.services.container import Services
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.health import Health
from voiceforge.services.models import ModelInfo, Models
from voiceforge.services.recordings import AudioBytes, AudioFile, LocalSource, Source, UrlSource
from voiceforge.services.result_cache import ResultCache
from voiceforge.services.transcriptions import Rendered, TranscribeRequest, Transcriptions
from voiceforge.speech.formats import FORMATS, render
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.transcript import (
    Coverage,
    Finished,
    Language,
    ModelRef,
    Progress,
    Segment,
    SegmentReady,
    TranscribeEvent,
    Transcript,
    Word,
)
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import FakeEngine

Script = Callable[[TranscribeRequest], AsyncGenerator[TranscribeEvent, None]]


def spoken(*texts: str, words: bool = False, task: str = "transcribe") -> Transcript:
    """A transcript with one segment of a second per text."""
    segments = tuple(
        Segment(
            id=number,
            start=float(number),
            end=float(number + 1),
            text=text,
            avg_logprob=-0.2,
            words=tuple(
                Word(word, number + place / 10, number + (place + 1) / 10, 0.9)
                for place, word in enumerate(text.split())
            )
            if words
            else (),
        )
        for number, text in enumerate(texts)
    )
    return Transcript(
        text=" ".join(texts),
        segments=segments,
        duration=float(len(texts)),
        language=Language("en", 1.0),
        coverage=Coverage(float(len(texts)), float(len(texts))),
        model=ModelRef("fake", "1"),
        task="translate" if task == "translate" else "transcribe",
        processing_s=0.5,
        rtf=0.5 / max(1, len(texts)),
    )


def says(*texts: str) -> Script:
    """Each text as a segment, then the whole."""

    async def script(request: TranscribeRequest) -> AsyncGenerator[TranscribeEvent, None]:
        transcript = spoken(*texts, words=request.options.words, task=request.options.task)
        for segment in transcript.segments:
            yield SegmentReady(segment)
            yield Progress(segment.end, transcript.duration)
        yield Finished(transcript)

    return script


def fails(error: Exception, *first: str) -> Script:
    """The texts as segments, then the error."""

    async def script(request: TranscribeRequest) -> AsyncGenerator[TranscribeEvent, None]:
        for segment in spoken(*first).segments:
            yield SegmentReady(segment)
        raise error

    return script


@dataclass
class ScriptedTranscriptions:
    """`requests` are those that began, `closed` counts those that ended, by themselves or stopped."""

    script: Script = field(default_factory=lambda: says("Hello there.", "This is a test."))
    models: Mapping[str, str] = field(default_factory=lambda: {"fake": "fake", "org/name": "org/name"})
    refusal: VoiceForgeError | None = None
    requests: list[TranscribeRequest] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)
    closed: int = 0

    def check(self, caller: Caller, model: str | None, options: TranscribeOptions) -> str:
        if self.refusal is not None:
            raise self.refusal
        if model is not None and model not in self.models:
            installed = ", ".join(self.models)
            raise ModelNotFound(f"there is no model {model!r}; installed: {installed}", field="model")
        return self.models[model or "fake"]

    def formats(self) -> tuple[str, ...]:
        return tuple(FORMATS)

    def timed_options(self, options: TranscribeOptions, fmt: str) -> bool:
        return options.words

    def render(self, transcript: Transcript, fmt: str, *, words: bool = False) -> Rendered:
        return Rendered(render(transcript, fmt, words=words), FORMATS[fmt].media_type)

    async def recall(
        self, request: TranscribeRequest, shape: Hashable, make: Callable[[Transcript], object]
    ) -> None:
        """No script is an earlier result."""

    @asynccontextmanager
    async def fetched(self, source: Source) -> AsyncIterator[LocalSource]:
        """What stands at a URL is the URL."""
        if isinstance(source, UrlSource):
            text = source.url.encode()
            yield AudioBytes((text,), hashlib.sha256(text).digest())
        else:
            yield source

    async def transcribe(self, request: TranscribeRequest) -> Transcript:
        async with aclosing(self.events(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.transcript
        raise Cancelled("the script ended without a transcript")

    async def events(self, request: TranscribeRequest) -> AsyncGenerator[TranscribeEvent, None]:
        self.requests.append(request)
        match request.source:
            case AudioBytes():
                self.uploads.append(request.source.joined())
            case AudioFile(path=path) | (Path() as path):
                self.uploads.append(await asyncio.to_thread(path.read_bytes))
        try:
            async with aclosing(self.script(request)) as events:
                async for event in events:
                    yield event
        finally:
            self.closed += 1


FAKE_INFO = ModelInfo(
    id="fake",
    title="Fake",
    family="fake",
    runtime="none",
    languages=("en",),
    size_bytes=1,
    licence="MIT",
    revision="1",
    installed=True,
    loaded=True,
    capabilities={"tasks": ["transcribe"]},
    hint=None,
    created=1_700_000_000,
    source="fake",
)


class ScriptedModels:
    """`fake` and `org/name` are installed, `bigger` could be; `whisper-1` is another name of `fake`."""

    def __init__(self) -> None:
        self._known = (
            FAKE_INFO,
            replace(FAKE_INFO, id="org/name"),
            replace(FAKE_INFO, id="bigger", installed=False, loaded=False, capabilities=None, hint="pull it"),
        )

    def list(self) -> list[ModelInfo]:
        return list(self._known)

    def installed(self) -> list[ModelInfo]:  # type: ignore[valid-type]  # `list` above is the method's name
        return [info for info in self._known if info.installed]

    def get(self, model_id: str) -> ModelInfo:
        wanted = "fake" if model_id == "whisper-1" else model_id
        for info in self._known:
            if info.id == wanted:
                return info
        raise ModelNotFound(f"there is no model {model_id!r}; installed: fake, org/name", field="model")


def scripted_services(
    transcriptions: ScriptedTranscriptions, data_dir: Path, *, ready: bool = True
) -> Services:
    """Services around a script; health, metrics and the cache (which no script fills) are real.

    ready: the default model is loaded.
    """
    metrics = Metrics("test")
    engines = EngineRoom(InProcessHosts(lambda model_id: FakeEngine()), metrics=metrics)
    if ready:
        engines.queue("fake")
    return Services(
        transcriptions=cast(Transcriptions, transcriptions),
        models=cast(Models, ScriptedModels()),
        health=Health(engines=engines, default_model="fake", data_dir=data_dir, version="test"),
        engines=engines,
        metrics=metrics,
        results=ResultCache(
            MemoryCache(1 << 20), recipe="", ttl_s=60, max_entry_bytes=1 << 20, metrics=metrics
        ),
    )
