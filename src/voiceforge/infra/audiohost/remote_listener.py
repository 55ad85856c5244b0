"""A `Listener` whose recordings are listened to by members: whatever the bytes do to a decoder, they do it
to a process that serves nobody else.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from voiceforge.errors import DecoderCrashed
from voiceforge.infra.audiohost.error_json import error_from_json
from voiceforge.infra.audiohost.event_json import events_from_json, options_to_json
from voiceforge.infra.audiohost.line import Garbled, Parcel
from voiceforge.infra.audiohost.pool import Errand, MemberLost, MemberPool
from voiceforge.speech.audio.decode import open_file
from voiceforge.speech.pipeline.listen import AudioSource, ListenEvent, ListenOptions, Recording
from voiceforge.telemetry.logger import Logger

LISTEN = "listen"
"""The craft."""

_log = Logger(__name__)


class RemoteListener:
    """See `Listener`. Owns the pool."""

    def __init__(self, pool: MemberPool) -> None:
        self._pool = pool

    def open(self, source: AudioSource, options: ListenOptions) -> Recording:
        return _RemoteRecording(source, options, self._pool.errand(LISTEN))

    def preload(self) -> None:
        self._pool.preload(LISTEN)

    def close(self) -> None:
        self._pool.close()


class _RemoteRecording:
    def __init__(self, source: AudioSource, options: ListenOptions, errand: Errand) -> None:
        self._source = source
        self._options = options
        self._errand = errand
        self._events = self._listen()

    def events(self) -> Iterator[ListenEvent]:
        return self._events

    def cancel(self) -> None:
        self._errand.cancel()

    def close(self) -> None:
        self._events.close()
        self._errand.close()

    def _listen(self) -> Generator[ListenEvent, None, None]:
        """Where a member is lost, the next one begins again and leaves out what has been given: it may have
        been spoilt by an earlier file, or ended by somebody. The second loss is the file's."""
        given, losses = 0, 0
        answer: Parcel | None = None
        while answer is None or not answer.message.get("over"):
            try:
                answer = self._order(given) if answer is None else self._errand.ask({"more": True})
                events, count = self._read(answer)
            except Garbled as error:
                raise _crashed() from error
            except MemberLost as error:
                losses += 1
                if error.stuck or losses > 1:
                    raise _crashed(stuck=error.stuck) from error
                answer = None
                continue
            given += count
            yield from events

    def _order(self, skip: int) -> Parcel:
        order = {"listen": options_to_json(self._options), "skip": skip}
        if isinstance(self._source, bytes):
            return self._errand.ask(order, [memoryview(self._source)])
        with open_file(self._source) as file:
            return self._errand.ask(order, descriptor=file.fileno())

    def _read(self, answer: Parcel) -> tuple[list[ListenEvent], int]:
        if "error" in answer.message:
            raise error_from_json(answer.message["error"])
        if "broken" in answer.message:
            _log.error("listening failed unexpectedly", trace=str(answer.message["broken"]))
            raise _crashed()
        return events_from_json(answer.message, answer.arrays)


def _crashed(*, stuck: bool = False) -> DecoderCrashed:
    how = "did not get on with it" if stuck else "broke down on it"
    return DecoderCrashed(f"the audio could not be decoded: the decoder {how}")
