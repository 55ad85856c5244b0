"""One live stream that is polished, from its first sample to the transcription that it becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.db.records import Retention
from voiceforge.services.access import Caller
from voiceforge.services.stream_revisions import Revisions, Wanted
from voiceforge.services.stream_spool import Spool
from voiceforge.speech.audio.conform import Rows
from voiceforge.speech.options import ChannelMode, StreamOptions, TranscribeOptions
from voiceforge.speech.transcript.stream_events import Closed, Final, StreamEvent, Warned
from voiceforge.telemetry.logger import Logger

_LAST_REVISIONS_S = 10.0
"""For so long a stream that is over waits for them."""
_KEEP_WITHIN_S = 20.0
"""For so long it waits until it is known to be kept."""
_MOST_PENDING_S = 20.0
"""Of a stream that comes faster than it is spoken, and waits for the disk then."""
_PATIENCE_S = 10.5
SHORTEST_S = 0.1
"""Less becomes no transcription."""

if TYPE_CHECKING:
    from voiceforge.services.stream_keeper import StreamKeeper

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class Polish:
    """How one stream is polished. model: by its id. retention: None: as the server's policy says."""

    model: str
    caller: Caller
    channels: ChannelMode
    retention: Retention | None = None


Tell = Callable[[Sequence[StreamEvent]], None]


class Keeping:
    """Of one stream; belongs to the event loop, `hear` excepted.

    Args:
        busy: whether finals are late now. tell: takes events, in the loop.
        room: called from any thread where `has_room` may be true again.
    """

    def __init__(
        self,
        keeper: StreamKeeper,
        spool: Spool | VoiceForgeError,
        polish: Polish,
        options: StreamOptions,
        *,
        writers: ThreadPoolExecutor,
        busy: Callable[[], bool],
        tell: Tell,
        room: Callable[[], None],
    ) -> None:
        self.transcription_id: str | None = None
        self._keeper = keeper
        self._polish = polish
        self._options = options
        self._languages = {options.language}
        self._tell = tell
        self._room = room
        self._patience: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._ending = False
        self._hurried = asyncio.Event()
        self._spool = spool if isinstance(spool, Spool) else None
        self._revisions: Revisions | None = None
        if self._spool is None:
            assert isinstance(spool, VoiceForgeError)
            self._loop.call_soon(self._stopped, 0.0, spool)
            return
        self._spool.begin(writers, self._on_stopped, room)
        self._revisions = Revisions(
            keeper.reviser,
            Wanted(polish.model, polish.caller, busy),
            options=lambda: keeper.options_of(polish, self._options),
            read=self._spool.read,
            tell=tell,
        )

    def hear(self, rows: Rows) -> None:
        """From any thread."""
        if self._spool is not None:
            self._spool.put(rows)

    def has_room(self) -> bool:
        """False: so much is not written yet that more has to wait, though not for long."""
        if self._spool is None or self._spool.pending_s < _MOST_PENDING_S:
            return True
        if self._patience is None:
            self._patience = self._loop.call_later(_PATIENCE_S, self._lose_patience)
        return False

    def check(self, options: StreamOptions) -> None:
        """
        Raises:
            UnsupportedOption: the model that polishes cannot.
        """
        self._keeper.check(self._polish, options)

    def configure(self, options: StreamOptions) -> None:
        self._options = options
        self._languages.add(options.language)

    def pass_on(self, events: Sequence[StreamEvent]) -> list[StreamEvent]:
        """What is to be told of these now. Their end is told once the stream is kept."""
        told: list[StreamEvent] = []
        for event in events:
            if isinstance(event, Closed):
                self._begin_ending(event)
                break
            if isinstance(event, Final) and self._revisions is not None:
                self._revisions.add(event)
            told.append(event)
        return told

    def hurry(self) -> None:
        """The server leaves: no more revisions."""
        self._hurried.set()

    def over(self) -> None:
        """Nobody is told any more. Idempotent."""
        self._hurried.set()
        self._begin_ending(None)

    # -- inside

    def _begin_ending(self, closed: Closed | None) -> None:
        if not self._ending:
            self._ending = True
            self._keeper.adopt(asyncio.create_task(self._end(closed)))

    def _lose_patience(self) -> None:
        self._patience = None
        if self._spool is not None:
            self._spool.stop_where_stuck()
        self._room()

    async def _end(self, closed: Closed | None) -> None:
        await self._last_revisions()
        keeping = asyncio.create_task(self._keep())
        self._keeper.adopt(keeping)
        await asyncio.wait({keeping}, timeout=_KEEP_WITHIN_S)
        if closed is not None:
            told = [keeping.result() if keeping.done() else _later("storing it takes long"), closed]
            self._tell([event for event in told if event is not None])

    async def _last_revisions(self) -> None:
        if self._revisions is None:
            return
        if not self._hurried.is_set():
            told = asyncio.create_task(self._revisions.all_told())
            hurried = asyncio.create_task(self._hurried.wait())
            await asyncio.wait(
                {told, hurried}, timeout=_LAST_REVISIONS_S, return_when=asyncio.FIRST_COMPLETED
            )
            told.cancel()
            hurried.cancel()
        self._revisions.stop()

    async def _keep(self) -> Warned | None:
        """What is to be told of it, beside the id."""
        spool = self._spool
        if spool is None:
            return None
        note = self._keeper.named(replace(spool.note, options=self._last_options()))
        try:
            await asyncio.to_thread(spool.finish)
            if spool.duration_s < SHORTEST_S:
                await asyncio.to_thread(spool.remove)
                return None
            await asyncio.to_thread(spool.renote, note)
            self.transcription_id = note.transcription_id  # whoever goes on with it knows of it by now
            await self._keeper.keep(spool)
        except VoiceForgeError as error:
            await asyncio.to_thread(spool.release)
            return _later(error.message)
        except Exception:
            _log.exception("stream not kept")
            await asyncio.to_thread(spool.release)
            return _later("something went wrong on our side")
        return None

    def _last_options(self) -> TranscribeOptions:
        """For all of it: what was said in several languages is in none of them."""
        options = self._keeper.options_of(self._polish, self._options)
        return options if len(self._languages) == 1 else replace(options, language=None)

    def _on_stopped(self, at: float, error: VoiceForgeError) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._stopped, at, error)

    def _stopped(self, at: float, error: VoiceForgeError) -> None:
        _log.warning("stream kept no further", audio_s=round(at, 1), problem=error.code)
        self._keeper.metrics.stream_kept("stopped")
        self._tell([_not_kept(error, at)])


def _not_kept(error: VoiceForgeError, at: float) -> Warned:
    what = "no transcription follows" if at < SHORTEST_S else f"what was said after {at:.1f} s is not kept"
    return Warned("not_kept", f"{what}: {error.message}")


def _later(why: str) -> Warned:
    return Warned("kept_later", f"its transcription follows once it can be stored: {why}")
