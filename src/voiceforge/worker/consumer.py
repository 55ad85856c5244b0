"""Celery's worker in a thread of a process that is ours: it takes tasks from the broker for as long as that
process wants, and puts up with a broker that is away.

Threads work on the tasks, since all they do is wait for the event loop. Processes in their place would hold
the models as many times.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from celery import Celery
from celery.app.trace import setup_worker_optimizations
from celery.worker import WorkController, state
from kombu.asynchronous import get_event_loop

from voiceforge.infra.jobqueue.base import Lane
from voiceforge.infra.jobqueue.celery import queue_name
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)


class Consumer:
    """One per process: Celery keeps what it knows in globals.

    Args:
        name: of this worker among those of the broker, such as `worker@host`; no two may have the same.
        at_once: tasks worked on at a time.
        on_ready: called from another thread when it is there for tasks; `exit_code` says how it went.
        on_ended: likewise when it takes none any more, asked for or not.
    """

    def __init__(
        self,
        app: Celery,
        *,
        name: str,
        lanes: Sequence[Lane],
        at_once: int,
        on_ready: Callable[[], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._app = app
        self._name = name
        self._lanes = tuple(lanes)
        self._at_once = at_once
        self._on_ready = on_ready
        self._on_ended = on_ended
        self._thread = threading.Thread(target=self._run, name="celery", daemon=True)
        self.exit_code = 0

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more tasks, and end when those that were taken have ended. Returns at once."""
        state.should_stop = 0
        hub = get_event_loop()
        if hub is not None:
            hub.call_soon(_wake)

    def wait_ended(self, timeout_s: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            setup_worker_optimizations(self._app, self._name)
            controller = WorkController(
                app=self._app,
                hostname=self._name,
                pool="threads",
                concurrency=self._at_once,
                queues=[queue_name(lane) for lane in self._lanes],
                task_events=True,
                without_mingle=True,
                without_gossip=True,
                ready_callback=lambda consumer: self._on_ready(),
            )
            controller.start()
            self.exit_code = controller.exitcode or 0
        except Exception:
            self.exit_code = 1
            _log.exception("tasks cannot be taken from the broker")
        finally:
            self._on_ended()


def _wake() -> None:
    pass
