"""Live streams that are polished: kept while they are spoken, and made a transcription once they are over.

    ears ─ rows ─▶ spool ─▶ revisions, while it goes on
                     └────▶ a job like any other, at its end

The stream never waits for it, and goes on where it goes wrong. Streams that lost their process are found in
the folder of the spool, and become transcriptions all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from voiceforge.errors import ModelNotFound, NotFound, StorageFull, Unavailable, VoiceForgeError
from voiceforge.infra.db.ids import new_id
from voiceforge.services.access import trusted
from voiceforge.services.chores import Chore
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.jobs import Jobs
from voiceforge.services.models import Models
from voiceforge.services.stream_keeping import SHORTEST_S, Keeping, Polish, Tell
from voiceforge.services.stream_revisions import Reviser
from voiceforge.services.stream_spool import Spool, SpoolNote
from voiceforge.services.streams import BEST, StreamRequest
from voiceforge.services.transcriptions import Transcriptions
from voiceforge.speech.options import AudioLimits, StreamOptions, TranscribeOptions
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import Metrics

_WRITERS = 2
_SWEEP_EVERY_S = 15.0
_UNTOUCHED_S = 10.0
_CLOSING_S = 2.0

_log = Logger(__name__)


class StreamKeeper:
    """Of all streams of a process. All but `spool` belongs to one event loop.

    Args:
        folder: for nothing else; processes of the same machine share it.
        defaults: what transcriptions start from.
        revisers: utterances that are heard again at a time.
        lost_s: what could not be made a transcription for so long is removed.
        clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        folder: Path,
        jobs: Jobs,
        models: Models,
        transcriptions: Transcriptions,
        metrics: Metrics,
        defaults: TranscribeOptions,
        revisers: int = 1,
        lost_s: float = 86_400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._jobs = jobs
        self._models = models
        self._transcriptions = transcriptions
        self._defaults = defaults
        self._lost_s = lost_s
        self._clock = clock
        self.metrics = metrics
        self.reviser = Reviser(transcriptions.transcribe, metrics, at_once=revisers)
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="keep-stream")
        self._tasks: set[asyncio.Task[Any]] = set()

    def model_of(self, wish: str, live_model: str, language: str | None) -> str:
        """The id of the model that a wish means. `BEST`: what an alias of that name says, else the largest
        of the installed ones that know the language, or all that the live one knows.

        Raises:
            ModelNotFound, ModelNotInstalled
        """
        if wish != BEST:
            return self._models.require_installed(wish)
        try:
            return self._models.require_installed(BEST)
        except ModelNotFound:
            installed = {info.id: info for info in self._models.installed()}
            live = installed.get(live_model) or self._models.get(live_model)
            spoken = {language} if language is not None else set(live.languages)
            able = [info for info in installed.values() if spoken <= set(info.languages)]
            return max([live, *able], key=lambda info: info.size_bytes or 0).id

    def polish(self, request: StreamRequest, wish: str, live_model: str) -> Polish:
        """How a stream is to be polished that wishes for it.

        Raises:
            ModelNotFound, ModelNotInstalled, UnsupportedOption
        """
        model = self.model_of(wish, live_model, request.options.language)
        polish = Polish(model, request.caller, request.channels, request.retention)
        self.check(polish, request.options)
        return polish

    def check(self, polish: Polish, options: StreamOptions) -> None:
        """
        Raises:
            ModelNotInstalled, UnsupportedOption
        """
        self._transcriptions.check(polish.caller, polish.model, self.options_of(polish, options))

    def options_of(self, polish: Polish, options: StreamOptions) -> TranscribeOptions:
        return replace(
            self._defaults,
            language=options.language,
            words=options.words,
            channels=polish.channels,
            prompt=options.prompt,
            keyterms=options.keyterms,
            temperature=options.temperature,
            beam_size=options.beam_size,
            limits=AudioLimits(SHORTEST_S),
            vad=replace(self._defaults.vad, threshold=options.vad_threshold),
        )

    def spool(self, stream_id: str, polish: Polish, options: StreamOptions) -> Spool | VoiceForgeError:
        """Where the stream's audio goes, or why there is no such place. Blocks."""
        note = SpoolNote(
            polish.caller.tenant,
            polish.model,
            self.options_of(polish, options),
            polish.retention,
            user_id=polish.caller.user_id,
            key_id=polish.caller.key_id,
        )
        try:
            return Spool.create(self._folder, stream_id, note)
        except VoiceForgeError as error:
            return error

    def keeping(
        self,
        spool: Spool | VoiceForgeError,
        polish: Polish,
        options: StreamOptions,
        *,
        busy: Callable[[], bool],
        tell: Tell,
        room: Callable[[], None],
    ) -> Keeping:
        """As `Keeping`."""
        return Keeping(self, spool, polish, options, writers=self._writers, busy=busy, tell=tell, room=room)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """It goes on when its stream is gone."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def named(self, note: SpoolNote) -> SpoolNote:
        """With the id of the transcription that is to come of it."""
        return replace(note, transcription_id=new_id("tr", self._clock()))

    async def keep(self, spool: Spool) -> None:
        """Make a finished spool the transcription that its note names; then it is gone. Where that fails
        others find it.

        Raises:
            VoiceForgeError
        """
        note = spool.note
        assert note.transcription_id is not None
        try:
            source = await asyncio.to_thread(spool.lend)
            await self._jobs.submit(
                JobRequest(
                    source=source,
                    options=note.options,
                    model=note.model,
                    caller=replace(trusted(note.tenant), user_id=note.user_id, key_id=note.key_id),
                    filename=spool.path.name,
                    retention=note.retention,
                    id=note.transcription_id,
                )
            )
        except BaseException as error:
            await asyncio.to_thread(spool.release)
            self.metrics.stream_kept("later")
            _log.warning("stream not kept yet", problem=getattr(error, "code", type(error).__name__))
            raise
        await asyncio.to_thread(spool.remove)
        self.metrics.stream_kept("kept")

    # -- what was left behind

    def chores(self) -> tuple[Chore, ...]:
        """For each process: only the machine with the folder can do it."""
        return (Chore("keep_lost_streams", _SWEEP_EVERY_S, self.keep_lost),)

    async def keep_lost(self) -> int:
        """Make what was left behind transcriptions, and remove what is too old for it; how many there were.

        Raises:
            Unavailable: the rest is for the next time.
        """
        now = self._clock()
        old, untouched = now - self._lost_s, now - _UNTOUCHED_S
        spools, strays = await asyncio.to_thread(Spool.left_behind, self._folder, before=untouched)
        await asyncio.to_thread(_remove, strays, old)
        found = len(spools)
        try:
            while spools:
                await self._keep_lost(spools.pop(), old)
        finally:
            for spool in spools:
                spool.release()
        return found

    async def _keep_lost(self, spool: Spool, old: float) -> None:
        too_old = spool.changed_at < old
        try:
            note = spool.note
            if spool.duration_s < SHORTEST_S or await self._is_kept(note):
                await asyncio.to_thread(spool.remove)
                return
            await asyncio.to_thread(spool.finish)
            if note.transcription_id is None:
                await asyncio.to_thread(spool.renote, self.named(note))
            await self.keep(spool)
            _log.warning("stream kept that was left behind", audio_s=round(spool.duration_s, 1))
        except VoiceForgeError as error:
            if too_old:
                await asyncio.to_thread(spool.remove)
                self.metrics.stream_kept("lost")
                _log.error("stream could not be kept, and was removed", problem=error.code)
            elif isinstance(error, Unavailable | StorageFull):
                raise
        finally:
            spool.release()

    async def _is_kept(self, note: SpoolNote) -> bool:
        if note.transcription_id is None:
            return False
        try:
            await self._jobs.show(trusted(note.tenant), note.transcription_id, whole=False)
        except NotFound:
            return False
        return True

    async def erase(self, tenant: str, user_id: str | None) -> int:
        """Remove what was left behind of a tenant's streams, or of one person's; how many. Those that go on
        are their own, and end as transcriptions.

        Raises:
            Unavailable
        """
        spools, _ = await asyncio.to_thread(Spool.left_behind, self._folder, before=float("inf"))
        count = 0
        try:
            for spool in spools:
                if spool.note.tenant == tenant and user_id in (None, spool.note.user_id):
                    await asyncio.to_thread(spool.remove)
                    count += 1
        finally:
            for spool in spools:
                spool.release()
        return count

    async def close(self) -> None:
        """What is under way may end within moments; the rest is left for the next process."""
        await self.reviser.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSING_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._writers.shutdown)


def _remove(paths: Sequence[Path], before: float) -> None:
    """Those that nobody wrote to since. Blocks."""
    for path in paths:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < before:
                path.unlink()
