"""Keeps the engine hosts of this machine: one per model, started when first wanted, watched, ended when
nobody wants them any more.

A host that died is started again when somebody asks for it, and those who use it ask at once. One that
hangs, or has grown beyond its bounds, is ended here.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Protocol

from voiceforge.errors import EngineCrashed, ShuttingDown, VoiceForgeError
from voiceforge.infra.enginehost.base import EngineSpec
from voiceforge.infra.enginehost.host_process import HostProcess
from voiceforge.telemetry.logger import Logger

_WATCH_EVERY_S = 0.5
_RETIREMENT_S = 30.0

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class WatchRules:
    """When a host is ended.

    silent_s: it has not answered for so long: stopped, or stuck in native code that lets nobody else run.
    batch_s: one batch has been running for so long.
    stalled_s: while it loads: it has neither computed nor waited for a disk for so long. A slow disk may take
        its time, who was stopped or waits for what never comes may not.
    max_rss_bytes: its resident memory; it then ends between two batches and starts anew. None: no limit.
    """

    silent_s: float = 5.0
    batch_s: float = 300.0
    stalled_s: float = 60.0
    max_rss_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Acquired:
    """address: of the host's socket. started: it was not up and is now; again: because it had ended."""

    address: Path
    started: bool = False
    again: bool = False


class Hosts(Protocol):
    """What those who use hosts need of their keeper; it may be in another process."""

    def acquire(self, spec: EngineSpec) -> Acquired:
        """A host of the model, which is up; blocks while one starts.

        Raises:
            VoiceForgeError: the model cannot be loaded.
        """
        ...

    def release(self, model_id: str) -> None:
        """This user needs the model no longer. The host ends when nobody does; blocks until it has."""
        ...

    def renew(self, spec: EngineSpec) -> None:
        """Start another host of a model, then let the old one finish its batches and end.

        Raises:
            VoiceForgeError: the model cannot be loaded; the old host stays.
        """
        ...

    def memory_bytes(self, model_id: str) -> int | None: ...

    def close(self) -> None: ...


@dataclass(eq=False, slots=True)
class _Place:
    """Where the host of one model is or will be. Its lock is held while one starts or ends. lost: the last
    one ended by itself."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    host: HostProcess | None = None
    lost: bool = False
    users: set[Hashable] = field(default_factory=set)
    reported: HostProcess | None = None


class HostKeeper:
    """Owns the child processes. Thread-safe; `for_user` gives each of several users its own view.

    Args:
        command: runs an engine host (see `HostProcess`).
    """

    def __init__(self, command: Sequence[str], *, rules: WatchRules | None = None) -> None:
        self._command = tuple(command)
        self._rules = rules or WatchRules()
        # Not beside the data: the path of a socket is at most a hundred bytes or so.
        self._folder = tempfile.TemporaryDirectory(prefix="voiceforge-")
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._numbers = count(1)
        self._closed = threading.Event()
        self._starting: set[HostProcess] = set()
        self._watcher = threading.Thread(target=self._watch, name="host-watch", daemon=True)
        self._watcher.start()

    def acquire(self, spec: EngineSpec, user: Hashable = None) -> Acquired:
        """See `Hosts.acquire`."""
        place = self._place(spec.entry.id)
        with place.lock:
            place.users.add(user)
            gone = place.host
            if gone is not None and gone.alive:
                return Acquired(gone.address)
            self._mourn(place)
            if gone is not None:
                gone.kill()  # it is dead: this tidies up after it
                place.host, place.lost = None, True
            # In place of a lost one: the first window that waits for it warms it up.
            place.host = self._start(replace(spec, warm_up=not place.lost))
            again, place.lost = place.lost, False
            return Acquired(place.host.address, started=True, again=again)

    def release(self, model_id: str, user: Hashable = None) -> None:
        """See `Hosts.release`."""
        place = self._place(model_id)
        with place.lock:
            place.users.discard(user)
            if not place.users and place.host is not None:
                host, place.host = place.host, None
                host.retire(_RETIREMENT_S)
            place.lost = place.lost and bool(place.users)

    def release_all(self, user: Hashable) -> None:
        """A user is gone."""
        for model_id in list(self._places):
            self.release(model_id, user)

    def renew(self, spec: EngineSpec, user: Hashable = None) -> None:
        """See `Hosts.renew`."""
        place = self._place(spec.entry.id)
        with place.lock:
            old: HostProcess | None = place.host
            place.host = self._start(spec)
            place.users.add(user)
        if old is not None:
            old.retire(_RETIREMENT_S)

    def memory_bytes(self, model_id: str) -> int | None:
        host = self._place(model_id).host
        return None if host is None else host.rss_bytes()

    def pid(self, model_id: str) -> int | None:
        """Of the host of a model; None where there is none."""
        host = self._place(model_id).host
        return host.pid if host is not None and host.alive else None

    def close(self) -> None:
        """End all hosts, at once: what they work on is for nobody any more. Idempotent."""
        self._closed.set()
        with self._lock:
            starting, places = list(self._starting), list(self._places.values())
        for host in starting:
            host.kill()
        for place in places:
            with place.lock:
                last, place.host = place.host, None
                if last is not None:
                    last.kill()
        if threading.current_thread() is not self._watcher:
            self._watcher.join()
        self._folder.cleanup()

    def _place(self, model_id: str) -> _Place:
        with self._lock:
            return self._places.setdefault(model_id, _Place())

    def _start(self, spec: EngineSpec) -> HostProcess:
        with self._lock:
            if self._closed.is_set():
                raise ShuttingDown("the server is shutting down", retry_after_s=5)
            host = HostProcess(self._command, spec, Path(self._folder.name) / f"{next(self._numbers)}")
            self._starting.add(host)
        try:
            host.wait_ready()
        except VoiceForgeError as error:
            if self._closed.is_set():
                raise ShuttingDown("the server is shutting down", retry_after_s=5) from None
            if isinstance(error, EngineCrashed):
                _log_end(host)
            raise
        finally:
            with self._lock:
                self._starting.discard(host)
        _log.info("engine host started", model=spec.entry.id, pid=host.pid)
        return host

    # -- the thread that watches

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_EVERY_S):
            with self._lock:
                places, starting = dict(self._places), list(self._starting)
            for loading in starting:
                if loading.stalled_s() > self._rules.stalled_s:
                    _log.error("engine host does not load", model=loading.spec.entry.id, pid=loading.pid)
                    loading.kill()  # whoever waits for it is told
            for model_id, place in places.items():
                host = place.host
                if host is None:
                    continue
                if not host.alive:
                    self._mourn(place)
                elif (reason := self._wrong_with(host)) is not None:
                    _log.error("engine host killed", model=model_id, pid=host.pid, reason=reason)
                    place.reported = host
                    host.kill()
                elif self._is_too_large(host):
                    self._shrink(place, host)

    def _mourn(self, place: _Place) -> None:
        """Say once that a host ended by itself."""
        host = place.host
        if host is not None and place.reported is not host and not self._closed.is_set():
            place.reported = host
            _log_end(host)

    def _wrong_with(self, host: HostProcess) -> str | None:
        if host.pulse() > self._rules.silent_s:
            return "it does not answer"
        running_s = host.status.running_s if host.status is not None else None
        if running_s is not None and running_s > self._rules.batch_s:
            return f"one batch has been running for {running_s:.0f} s"
        return None

    def _is_too_large(self, host: HostProcess) -> bool:
        limit, rss = self._rules.max_rss_bytes, host.rss_bytes()
        return limit is not None and rss is not None and rss > limit

    def _shrink(self, place: _Place, host: HostProcess) -> None:
        """End it between two batches: those who use it ask for another."""
        _log.warning("engine host restarts: it takes too much memory", model=host.spec.entry.id, pid=host.pid)
        with place.lock:
            if place.host is host:
                place.reported = host
                host.retire(_RETIREMENT_S)


def _log_end(host: HostProcess) -> None:
    _log.error("engine host ended", model=host.spec.entry.id, pid=host.pid, exit_code=host.exit_code)


class OneUser:
    """A `Hosts` of a keeper that others use too: what this user holds is told apart from what they do."""

    def __init__(self, keeper: HostKeeper, user: Hashable) -> None:
        self._keeper = keeper
        self._user = user

    def acquire(self, spec: EngineSpec) -> Acquired:
        return self._keeper.acquire(spec, self._user)

    def release(self, model_id: str) -> None:
        self._keeper.release(model_id, self._user)

    def renew(self, spec: EngineSpec) -> None:
        self._keeper.renew(spec, self._user)

    def memory_bytes(self, model_id: str) -> int | None:
        return self._keeper.memory_bytes(model_id)

    def close(self) -> None:
        self._keeper.release_all(self._user)
