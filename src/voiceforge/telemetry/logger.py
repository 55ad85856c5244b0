"""How our modules log: an event, and values with it. What becomes of a line is `logs`' business.

Needs nothing but the standard library, so that a process which writes no line pays for none.
"""

from __future__ import annotations

import logging

VALUES = "voiceforge_values"
"""The attribute of a log record that holds the values."""


class Logger:
    """As `structlog.get_logger(name)`, for what we use of it."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **values: object) -> None:
        self._write(logging.DEBUG, event, values)

    def info(self, event: str, **values: object) -> None:
        self._write(logging.INFO, event, values)

    def warning(self, event: str, **values: object) -> None:
        self._write(logging.WARNING, event, values)

    def error(self, event: str, *, exc_info: BaseException | None = None, **values: object) -> None:
        self._write(logging.ERROR, event, values, exc_info)

    def exception(self, event: str, **values: object) -> None:
        """An error with the traceback of the exception being handled."""
        self._write(logging.ERROR, event, values, True)

    def _write(
        self,
        level: int,
        event: str,
        values: dict[str, object],
        exc_info: BaseException | bool | None = None,
    ) -> None:
        logger = self._logger
        if not logger.isEnabledFor(level):
            return
        extra = {VALUES: values}
        if exc_info is not None:
            logger.log(level, event, exc_info=exc_info, extra=extra, stacklevel=3)
        else:  # `log` would look for file and line of the caller, which no line of ours shows
            logger.handle(logger.makeRecord(logger.name, level, "", 0, event, (), None, extra=extra))
