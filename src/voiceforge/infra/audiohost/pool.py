"""Members for whoever has work for them: reused while all goes well, never more at work than is of use.

    errand = pool.errand("listen") ─ ask(order) ─▶ a member works ─▶ answer, ask(more) ─▶ … ─▶ over

A member works only while somebody asks: one whose errand waits for something else, an engine perhaps, holds
a little memory and no place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from voiceforge.errors import Cancelled, ShuttingDown, Unavailable
from voiceforge.infra.audiohost.host_line import HostGone, HostLine, Member, NoMember
from voiceforge.infra.audiohost.line import Garbled, LineClosed, Parcel
from voiceforge.infra.audiohost.places import Places, Turn
from voiceforge.telemetry.logger import Logger

_BIRTHS = 3
"""Tries to make a member, where one ended before it could say a word."""
_RETRY_AFTER_S = 2.0

_log = Logger(__name__)


class MemberLost(Exception):
    """The member ended while it worked, or had to be ended. stuck: because it did not get on."""

    def __init__(self, *, stuck: bool) -> None:
        super().__init__()
        self.stuck = stuck


class PoolObserver(Protocol):
    """For the metrics. Called from several threads."""

    def audio_process_lost(self, craft: str, *, stuck: bool) -> None: ...


class MemberPool:
    """Thread-safe.

    Args:
        address: of the host.
        places: how many members of each craft may be at work at once.
        patience_s: a member that has not answered for so long is ended.
        orders_per_member: what a decoder leaks, or spoils unseen, goes with its process after so many.
    """

    def __init__(
        self,
        address: Path,
        places: Mapping[str, int],
        *,
        patience_s: float,
        orders_per_member: int = 100,
        observer: PoolObserver | None = None,
    ) -> None:
        self._address = address
        self._patience_s = patience_s
        self._orders_per_member = orders_per_member
        self._observer = observer
        self._places = {craft: Places(count) for craft, count in places.items()}
        self._lock = threading.Lock()
        self._idle: dict[str, list[Member]] = {craft: [] for craft in places}
        self._errands: set[Errand] = set()
        self._host: HostLine | None = None
        self._greeting: HostLine | None = None
        self._unreachable_until_s = 0.0
        self._host_lock = threading.Lock()
        self._closed = False

    def errand(self, craft: str) -> Errand:
        """Costs nothing yet. To be closed."""
        errand = Errand(self, craft, self._places[craft])
        with self._lock:
            self._errands.add(errand)
        return errand

    def preload(self, craft: str) -> None:
        """Have one member ready. Blocks until the host is up.

        Raises: as `Errand.ask`, but for MemberLost and Cancelled.
        """
        self.put_back(craft, self.take(craft, fresh=False))

    def close(self) -> None:
        """End all members and whatever they work on. Idempotent."""
        with self._lock:
            self._closed = True
            idle = [member for members in self._idle.values() for member in members]
            for members in self._idle.values():
                members.clear()
            errands = list(self._errands)
        for errand in errands:
            errand.cancel()
        for member in idle:
            member.dismiss()
        if (greeting := self._greeting) is not None:
            greeting.shut()
        with self._host_lock:
            if self._host is not None:
                self._host.close()

    # -- for errands

    def take(self, craft: str, *, fresh: bool) -> Member:
        """A member without an order. fresh: one that has never had any."""
        with self._lock:
            self._refuse_if_closed()
            waiting = [member for member in self._idle[craft] if member.is_waiting()]
            for member in set(self._idle[craft]).difference(waiting):
                member.dismiss()
            self._idle[craft] = waiting
            # The last one in: those at the bottom then idle for long, and end.
            if waiting and not fresh:
                return waiting.pop()
        for _ in range(_BIRTHS):
            try:
                return self._fork(craft)
            except NoMember:
                continue
        raise Unavailable("the system lets no further process start", retry_after_s=_RETRY_AFTER_S)

    def put_back(self, craft: str, member: Member) -> None:
        """It has carried out its order and waits for the next."""
        member.orders += 1
        with self._lock:
            if not self._closed and member.orders < self._orders_per_member:
                self._idle[craft].append(member)
                return
        member.dismiss()

    def forget(self, errand: Errand) -> None:
        with self._lock:
            self._errands.discard(errand)

    def lost(self, craft: str, member: Member, *, stuck: bool) -> MemberLost:
        """Take leave of a member that broke down; the error to raise."""
        member.kill()
        how = "stuck" if stuck else member.host.how_ended(member.number)
        _log.warning("audio process lost", craft=craft, how=how, orders_before=member.orders)
        if self._observer is not None:
            self._observer.audio_process_lost(craft, stuck=stuck)
        return MemberLost(stuck=stuck)

    @property
    def patience_s(self) -> float:
        return self._patience_s

    def _fork(self, craft: str) -> Member:
        """From the host there is, or from the one that took its place."""
        host = self._current(None)
        try:
            return host.fork(craft)
        except HostGone:
            host = self._current(host)
        try:
            return host.fork(craft)
        except HostGone as error:
            raise _unreachable() from error

    def _current(self, gone: HostLine | None) -> HostLine:
        """The line to the host, a new one where it was `gone` or there was none."""
        with self._host_lock:
            if self._host is None or self._host is gone:
                if gone is not None:
                    gone.close()
                self._host = None
                # Whoever waited for the lock while somebody else waited in vain need not do so again.
                if time.monotonic() < self._unreachable_until_s:
                    raise _unreachable()
                try:
                    self._host = self._connect()
                except HostGone as error:
                    self._refuse_if_closed()
                    self._unreachable_until_s = time.monotonic() + _RETRY_AFTER_S
                    raise _unreachable() from error
            return self._host

    def _connect(self) -> HostLine:
        host = HostLine(self._address)
        self._greeting = host  # from here on `close` shuts it
        try:
            if not self._closed:
                host.wait_greeting()
                return host
        finally:
            self._greeting = None
        host.close()
        raise HostGone

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ShuttingDown("the server is shutting down", retry_after_s=5)


def _unreachable() -> Unavailable:
    return Unavailable("the process that reads audio cannot be reached", retry_after_s=_RETRY_AFTER_S)


class Errand:
    """One piece of work; a thread of the caller's does it, but for `cancel`. Made by `MemberPool.errand`."""

    def __init__(self, pool: MemberPool, craft: str, places: Places) -> None:
        self._pool = pool
        self._craft = craft
        self._places = places
        self._turn = Turn()
        self._lock = threading.Lock()
        self._member: Member | None = None
        self._cancelled = False
        self._fresh = False

    def ask(
        self, message: Mapping[str, Any], arrays: Sequence[memoryview] = (), *, descriptor: int | None = None
    ) -> Parcel:
        """Order something of the member, or more of what was ordered; waits for the answer.

        Args:
            descriptor: an open file for it to read; stays the caller's to close.

        Raises:
            MemberLost: begin anew with the next call, or give up.
            Garbled: likewise; what it answered makes no sense.
            Cancelled: after `cancel`.
            DependencyMissing, Unavailable, ShuttingDown: there are no members to be had.
        """
        with self._places.one(self._turn, begun=self._member is not None):
            member = self._member
            if member is None:
                member = self._pool.take(self._craft, fresh=self._fresh)
                self._hold(member)
            patience_s = self._pool.patience_s
            try:
                member.line.send(message, arrays, descriptor=descriptor, patience_s=patience_s)
                answer = member.line.receive(patience_s)
            except (LineClosed, TimeoutError) as error:
                self._fresh = True
                self._release()
                if self._cancelled:
                    member.kill()
                    raise Cancelled("the transcription was cancelled") from error
                raise self._pool.lost(self._craft, member, stuck=isinstance(error, TimeoutError)) from error
            except Garbled:
                self._release()
                member.kill()
                raise
            if answer.message.get("over"):
                self._release()
                if answer.message.get("fit"):
                    self._pool.put_back(self._craft, member)
                else:
                    member.dismiss()
            return answer

    def cancel(self) -> None:
        """Make `ask` end now. From any thread."""
        with self._lock:
            self._cancelled = True
            if self._member is not None:
                self._member.line.shut()
        self._places.end(self._turn)

    def close(self) -> None:
        """Unfinished work is given up. Idempotent."""
        self._pool.forget(self)
        member = self._release()
        if member is not None:
            member.dismiss()

    def _hold(self, member: Member) -> None:
        with self._lock:
            self._member = member
            if self._cancelled:
                member.line.shut()

    def _release(self) -> Member | None:
        with self._lock:
            member, self._member = self._member, None
            return member
