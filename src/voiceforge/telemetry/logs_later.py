"""Logging for a process that mostly writes no line: set up when the first one comes.

structlog, and rich which it brings, take a good part of the start of a command.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voiceforge.telemetry.logs import LogFormat, LogLevel


def configure_logging_later(level: LogLevel, style: LogFormat) -> None:
    """`logs.configure_logging` with these choices, at the first line that is to be written."""
    logging.getLogger().addHandler(_FirstLine(level, style))
    logging.getLogger("voiceforge").setLevel(level.upper())


class _FirstLine(logging.Handler):
    """Puts what it stands for in its own place. One line at a time comes here: handlers are locked."""

    def __init__(self, level: LogLevel, style: LogFormat) -> None:
        super().__init__()
        self._choices = (level, style)

    def emit(self, record: logging.LogRecord) -> None:
        from voiceforge.telemetry.logs import configure_logging

        root = logging.getLogger()
        if self in root.handlers:
            root.removeHandler(self)
            configure_logging(*self._choices)
        root.handle(record)
