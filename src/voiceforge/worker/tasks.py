"""The tasks that workers take from the broker. They carry an id, and answer nothing: what became of it stands
in the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.exceptions import Reject

from voiceforge.infra.jobqueue.base import TaskKind
from voiceforge.infra.jobqueue.celery import task_name
from voiceforge.telemetry.logger import Logger
from voiceforge.worker.calls import Call, Calls, Closed

_log = Logger(__name__)


def add_tasks(app: Celery, calls: Calls, work: Mapping[TaskKind, Call]) -> None:
    """`app` knows them from now on.

    Args:
        work: what each does with its id; whether there was anything to do.
    """
    for kind, call in work.items():
        app.task(_task(kind, call, calls), name=task_name(kind), ignore_result=True)


def _task(kind: TaskKind, call: Call, calls: Calls) -> Any:
    def run(task_id: str) -> None:
        if not isinstance(task_id, str):
            raise Reject("not an id", requeue=False)
        try:
            calls.make(call, task_id)
        except Closed:
            raise Reject("this worker stops", requeue=True) from None
        except Exception as error:
            # Celery would log it with its arguments; and nobody waits for its answer.
            _log.exception("task failed", kind=kind, id=task_id)
            raise Reject(type(error).__name__, requeue=False) from None

    return run
