"""What our modules log, kept for a look at it instead of written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from voiceforge.telemetry.logger import VALUES


@contextmanager
def log_lines() -> Iterator[list[dict[str, Any]]]:
    """The lines of any level that are logged inside, each with `event`, `level`, `exc_info`, its values and
    those of its context; none is printed."""
    ours = logging.getLogger("voiceforge")
    keeper = _Keeper()
    level, propagates = ours.level, ours.propagate
    ours.addHandler(keeper)
    ours.setLevel(logging.DEBUG)
    ours.propagate = False
    try:
        yield keeper.lines
    finally:
        ours.removeHandler(keeper)
        ours.setLevel(level)
        ours.propagate = propagates


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(
            {
                **structlog.contextvars.get_contextvars(),
                **getattr(record, VALUES, {}),
                "event": record.getMessage(),
                "level": record.levelname.lower(),
                "exc_info": record.exc_info,
            }
        )
