"""Workers in other processes, told through Redis or RabbitMQ in the words of Celery.

A broker that is away costs nobody anything: what it was not told stands in the database, from where it is
told again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from celery import Celery
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.exceptions import KombuError

from voiceforge.infra.cache.breaker import Breaker, BreakerRule
from voiceforge.infra.jobqueue.base import Lane, Task, TaskKind
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)
T = TypeVar("T")

_CONNECT_S = 2.0
_TELL_S = 1.0
"""For who only tells. Workers wait for something to come, which takes as long as it takes."""
_LOWEST_PRIORITY = 9
_BREAKER = BreakerRule(failures=1, first_pause_s=0.5, longest_pause_s=5.0)


class QueueObserver(Protocol):
    """What a queue reports to whoever keeps the metrics."""

    def observe_untold(self, tasks: int) -> None:
        """So many could not be told; they are told again later."""
        ...

    def queue_available(self, available: bool) -> None: ...


def queue_name(lane: Lane) -> str:
    return f"voiceforge.{lane}"


def task_name(kind: TaskKind) -> str:
    return f"voiceforge.{kind}"


def celery_app(broker_url: str, *, visible_again_s: float = 3600.0) -> Celery:
    """What tellers and workers must agree on. Connects to nothing.

    Args:
        broker_url: `redis://`, `rediss://`, `amqp://` or `amqps://`.
        visible_again_s: until Redis hands a task that was taken and not answered for to another worker. That
            may come too early (the job is taken already) or late (it was told again long ago).
    """
    app = Celery("voiceforge", broker=broker_url, set_as_current=False)
    is_redis = broker_url.partition("://")[0] in ("redis", "rediss", "unix")
    options: dict[str, Any] = (
        {
            "visibility_timeout": visible_again_s,
            "queue_order_strategy": "priority",
            "socket_connect_timeout": _CONNECT_S,
            "socket_keepalive": True,
            "health_check_interval": 10,
        }
        if is_redis
        else {"confirm_publish": True}
    )
    app.conf.update(
        task_queues=[
            Queue(queue_name(lane), routing_key=queue_name(lane), queue_arguments={"x-max-priority": 9})
            for lane in Lane
        ],
        task_default_queue=queue_name(Lane.BULK),
        task_create_missing_queues=False,
        broker_transport_options=options,
        broker_connection_timeout=_CONNECT_S,
        # What they carry is an id: no reader of theirs needs more, and nobody can send code.
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        # A job goes on while the broker is away; its answer is then not needed any more.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=True,
        enable_utc=True,
    )
    return app


class CeleryQueue:
    """Connects when first used. One thread talks to the broker, one thing at a time."""

    def __init__(self, app: Celery, observer: QueueObserver) -> None:
        self._app = app
        self._observer = observer
        url: str = app.conf.broker_url
        # RabbitMQ hands out the highest number first, Redis the lowest.
        self._highest_first = url.startswith("amqp")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tells-workers")
        self._broker = Breaker(_BREAKER, self._on_away)
        self._connection: Connection | None = None
        observer.queue_available(True)

    async def offer(self, tasks: Sequence[Task]) -> bool:
        if not tasks:
            return True
        told = await self._asked(lambda: self._publish(tasks))
        if told is None:
            self._observer.observe_untold(len(tasks))
        return told is not None

    async def held(self) -> Mapping[Lane, int] | None:
        return await self._asked(self._count)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def _asked(self, ask: Callable[[], T]) -> T | None:
        """None: the broker is away, or was a moment ago."""
        if not self._broker.passes():
            return None
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, self._tried, ask)
        except _Away:
            self._broker.failed()
            return None
        self._broker.succeeded()
        return answer

    def _on_away(self, away: bool) -> None:
        self._observer.queue_available(not away)
        if away:
            _log.warning("broker out of reach; workers are told later")
        else:
            _log.info("broker answers again")

    # -- in the thread

    def _tried(self, ask: Callable[[], T]) -> T:
        if self._connection is None:
            self._connection = self._connect()
        try:
            return ask()
        except (*self._connection.connection_errors, *self._connection.channel_errors, *_TROUBLE) as error:
            _log.debug("broker did not answer", problem=type(error).__name__)
            self._disconnect()
            raise _Away from None

    def _connect(self) -> Connection:
        """One that gives up soon: it is asked for again anyway."""
        options: dict[str, Any] = dict(self._app.conf.broker_transport_options)
        options |= {"max_retries": 1, "interval_start": 0, "interval_step": 0}
        if self._highest_first:
            options |= {"read_timeout": _TELL_S, "write_timeout": _TELL_S}
        else:
            options |= {"socket_timeout": _TELL_S, "socket_connect_timeout": _TELL_S}
        connection: Connection = self._app.connection_for_write(transport_options=options)
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collect(socket_timeout=0.1)

    def _publish(self, tasks: Sequence[Task]) -> bool:
        with self._app.amqp.Producer(self._connection) as producer:
            for task in tasks:
                priority = _LOWEST_PRIORITY - task.priority if self._highest_first else task.priority
                self._app.send_task(
                    task_name(task.kind),
                    args=[task.id],
                    queue=queue_name(task.lane),
                    priority=priority,
                    countdown=task.delay_s or None,
                    producer=producer,
                    retry=False,
                )
        return True

    def _count(self) -> dict[Lane, int]:
        assert self._connection is not None
        with self._connection.channel() as channel:
            queues = {lane: self._app.amqp.queues[queue_name(lane)].bind(channel) for lane in Lane}
            return {lane: queue.queue_declare().message_count for lane, queue in queues.items()}


class _Away(Exception):
    pass


_TROUBLE = (OSError, KombuError, TimeoutError)
