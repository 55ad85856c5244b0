"""What live streams said, heard again by a better model while they go on.

It is nobody's right: one or a few utterances of a process are heard again at a time, while the finals of all
streams come soon enough, and what has waited for too long is left out. What was left out is in the document
that is made of the whole stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from voiceforge.errors import VoiceForgeError
from voiceforge.services.access import Caller
from voiceforge.services.recordings import AudioBytes
from voiceforge.services.result_cache import CacheUse
from voiceforge.services.transcriptions import TranscribeRequest
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.tickets import Priority
from voiceforge.speech.options import AudioLimits, RawFormat, TranscribeOptions
from voiceforge.speech.transcript.stream_events import Final, Revision, StreamEvent
from voiceforge.speech.transcript.types import Segment, Transcript
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import Metrics

_TOGETHER_S = 25.0
"""Utterances that wait are heard together, as far as they fit into a window of most models."""
_WAITING_S = 120.0
"""Older ones of a stream are left out."""
_AROUND_S = 0.2
_LOOK_S = 0.25
_DEADLINE_S = 60.0
_PCM = RawFormat("s16le", SAMPLE_RATE_HZ, 1)

_log = Logger(__name__)

Transcribe = Callable[[TranscribeRequest], Awaitable[Transcript]]
ReadAudio = Callable[[int, float, float], bytes]
"""A channel's samples between two seconds, as `_PCM`; blocks."""


class Reviser:
    """Serves all streams of a process; belongs to its event loop.

    Args:
        transcribe: hears what it is given.
        at_once: so many utterances at a time.
    """

    def __init__(self, transcribe: Transcribe, metrics: Metrics, *, at_once: int = 1) -> None:
        self.transcribe = transcribe
        self.metrics = metrics
        self._at_once = at_once
        self._waiting: deque[Revisions] = deque()
        self._working: set[asyncio.Task[None]] = set()

    def enlist(self, revisions: Revisions) -> None:
        """It has something to be heard again, and is not in line yet."""
        self._waiting.append(revisions)
        self._begin()

    def _begin(self) -> None:
        while self._waiting and len(self._working) < self._at_once:
            work = asyncio.create_task(self._waiting.popleft().work())
            self._working.add(work)
            work.add_done_callback(self._done)

    def _done(self, work: asyncio.Task[None]) -> None:
        self._working.discard(work)
        self._begin()

    async def close(self) -> None:
        self._waiting.clear()
        for work in self._working:
            work.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a stream wishes its utterances to be heard by. busy: whether finals are late now."""

    model: str
    caller: Caller
    busy: Callable[[], bool]


class Revisions:
    """Of one stream.

    Args:
        options: as the stream wishes them now.
        read: its audio. tell: takes revisions, in the loop.
    """

    def __init__(
        self,
        reviser: Reviser,
        wanted: Wanted,
        *,
        options: Callable[[], TranscribeOptions],
        read: ReadAudio,
        tell: Callable[[Sequence[StreamEvent]], None],
    ) -> None:
        self._reviser = reviser
        self._wanted = wanted
        self._options = options
        self._read = read
        self._tell = tell
        self._finals: dict[int, deque[Final]] = {}
        self._ending = False
        self._over = False
        self._work: asyncio.Task[None] | None = None
        self._listed = False
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, final: Final) -> None:
        if self._over or not final.segments:
            return
        waiting = self._finals.setdefault(final.channel, deque())
        waiting.append(final)
        while final.end - waiting[0].start > _WAITING_S:
            waiting.popleft()
            self._reviser.metrics.revision_dropped()
        self._enlist()

    async def all_told(self) -> None:
        """No further final comes: until the last one was heard again."""
        self._ending = True
        self._enlist()
        await self._idle.wait()

    def stop(self) -> None:
        """Nobody is told any more. Idempotent."""
        self._over = True
        for _ in range(sum(len(waiting) for waiting in self._finals.values())):
            self._reviser.metrics.revision_dropped()
        self._finals.clear()
        if self._work is not None:
            self._work.cancel()
        self._idle.set()

    async def work(self) -> None:
        """Have some heard again; for the reviser."""
        self._work = asyncio.current_task()
        try:
            while self._wanted.busy():  # noqa: ASYNC110  # nothing would tell us
                await asyncio.sleep(_LOOK_S)
            finals = self._next()
            if finals:
                await self._revise(finals)
        except VoiceForgeError as error:
            self._reviser.metrics.revision_dropped()
            _log.warning("utterance not heard again", problem=error.code)
        except asyncio.CancelledError:
            if not self._over:
                raise
        except Exception as error:  # its message may quote the text
            self._reviser.metrics.revision_dropped()
            _log.error("utterance not heard again", problem=type(error).__name__)
        finally:
            self._work, self._listed = None, False
            if not self._enlist():
                self._idle.set()

    def _enlist(self) -> bool:
        """Whether there is anything to do."""
        if self._over or not any(self._ready(waiting) for waiting in self._finals.values()):
            return False
        self._idle.clear()
        if not self._listed:
            self._listed = True
            self._reviser.enlist(self)
        return True

    def _ready(self, waiting: deque[Final]) -> bool:
        """What was cut in its midst waits for its rest."""
        return bool(waiting) and (
            self._ending
            or waiting[-1].reason != "max_length"
            or waiting[-1].end - waiting[0].start > _TOGETHER_S / 2
        )

    def _next(self) -> list[Final]:
        """What has waited longest, of one channel."""
        ready = [waiting for waiting in self._finals.values() if self._ready(waiting)]
        if not ready:
            return []
        waiting = min(ready, key=lambda finals: finals[0].start)
        taken = [waiting.popleft()]
        while waiting and waiting[0].end - taken[0].start <= _TOGETHER_S:
            taken.append(waiting.popleft())
        return taken

    async def _revise(self, finals: Sequence[Final]) -> None:
        first, last = finals[0], finals[-1]
        from_s = max(0.0, first.start - _AROUND_S)
        audio = await asyncio.to_thread(self._read, first.channel, from_s, last.end + _AROUND_S)
        if not audio:  # kept no further
            self._reviser.metrics.revision_dropped()
            return
        options = replace(self._options(), channels="mix", raw=_PCM, limits=AudioLimits(0.0))
        transcript = await self._reviser.transcribe(
            TranscribeRequest(
                source=AudioBytes((audio,), b""),
                options=options,
                model=self._wanted.model,
                priority=Priority.BULK,
                caller=self._wanted.caller,
                cache=CacheUse.NONE,
                deadline_s=_DEADLINE_S,
            )
        )
        if not transcript.segments:  # words are not taken away by somebody who heard nothing
            self._reviser.metrics.revision_dropped()
            return
        segments = tuple(_moved(segment, from_s, first.channel) for segment in transcript.segments)
        text = " ".join(segment.text for segment in segments)
        self._reviser.metrics.revision_told()
        self._tell([Revision(first.channel, first.utterance, last.utterance, text, segments)])


def _moved(segment: Segment, by: float, channel: int) -> Segment:
    words = tuple(replace(word, start=word.start + by, end=word.end + by) for word in segment.words)
    return replace(segment, start=segment.start + by, end=segment.end + by, words=words, channel=channel)
