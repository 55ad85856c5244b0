"""Log lines: structlog and the standard library end in one handler, as JSON or for a terminal.

Two kinds of content never leave: secrets are masked, and whatever was spoken or asked for is withheld.
Our modules log through `logger.Logger(__name__)`; libraries through `logging` or structlog, alike.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from voiceforge.telemetry.logger import VALUES

LogFormat = Literal["auto", "json", "pretty"]
LogLevel = Literal["debug", "info", "warning", "error"]

MASK = "********"

# Keys under which transcripts and what callers say about them travel; personal data.
SPOKEN_KEYS = frozenset({"text", "transcript", "segments", "words", "prompt", "keyterms", "hypothesis"})

# These speak at the chosen level; every other library is heard from warnings upwards only, because
# some of them log addresses with credentials, or text they recognised, at lower levels.
_OWN_LOGGERS = ("voiceforge", "uvicorn")

_SECRET_KEY = re.compile(r"authorization|api_?key|token$|secret|passw|cookie|credential", re.IGNORECASE)
_SECRETS_IN_TEXT = (
    (re.compile(r"(?i)\b(bearer|basic|token)\s+[\w.~+/=-]{4,}"), rf"\1 {MASK}"),
    (re.compile(r"(?i)([?&][\w-]*(?:key|token|secret|signature|password|sig)=)[^&\s\"']+"), rf"\1{MASK}"),
    (re.compile(r"(\w://)[^/@\s]+@"), rf"\1{MASK}@"),
)


def configure_logging(
    level: LogLevel = "info", style: LogFormat = "auto", stream: TextIO | None = None
) -> None:
    """Route every log line of this process to `stream` (None: stderr). Called once per process, by `main`;
    calling it again replaces the earlier choice.

    Args:
        style: `auto` writes for people on a terminal, JSON elsewhere.
    """
    target = sys.stderr if stream is None else stream
    pretty = style == "pretty" or (style == "auto" and target.isatty())
    handler = _VoiceForgeHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _own_values, *_shared_processors()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(pretty, target),
            ],
        )
    )
    root = logging.getLogger()
    for earlier in [present for present in root.handlers if isinstance(present, _VoiceForgeHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.upper())
    # uvicorn brings handlers of its own, unless started with log_config=None
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def log_context(**values: str) -> AbstractContextManager[None]:
    """Add `values` (such as request_id) to every line logged inside, in this task and its children."""
    return structlog.contextvars.bound_contextvars(**values)


class _VoiceForgeHandler(logging.StreamHandler[TextIO]):
    """Told apart from handlers that others put on the root logger."""


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        withhold_spoken,
        mask_secrets,
    ]


def _renderers(pretty: bool, target: TextIO) -> list[Processor]:
    # Tracebacks are made text before masking, and without local variables: those hold transcripts.
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if pretty
        else structlog.processors.JSONRenderer(serializer=json.dumps, default=str, ensure_ascii=False)
    )
    return [structlog.processors.format_exc_info, mask_secrets, renderer]


def _own_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Bring our values up beside the event; take out copies of the message that other formatters, and
    uvicorn, leave on a record."""
    values = event.pop(VALUES, {})
    others = {key: v for key, v in event.items() if key not in ("message", "asctime", "color_message")}
    return {**values, **others}


def withhold_spoken(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Remove transcript text at any depth; `withheld` names the keys that were removed."""
    found: set[str] = set()
    clean = _without_spoken(event, found)
    return {**clean, "withheld": sorted(found)} if found else clean


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask values under telling keys, and credentials inside any text."""
    return {key: _masked(key, value) for key, value in event.items()}


def _without_spoken(values: Mapping[str, Any], found: set[str]) -> MutableMapping[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if str(key).lower() in SPOKEN_KEYS:
            found.add(str(key))
        else:
            kept[key] = _each_mapping(value, found)
    return kept


def _each_mapping(value: object, found: set[str]) -> object:
    match value:
        case Mapping():
            return _without_spoken(value, found)
        case list():
            return [_each_mapping(item, found) for item in value]
        case tuple():
            return tuple(_each_mapping(item, found) for item in value)
        case _:
            return value


def _masked(key: str, value: object) -> object:
    if value is not None and _SECRET_KEY.search(key):
        return MASK
    match value:
        case str():
            for pattern, replacement in _SECRETS_IN_TEXT:
                value = pattern.sub(replacement, value)
            return value
        case Mapping():
            return {name: _masked(str(name), item) for name, item in value.items()}
        case list():
            return [_masked("", item) for item in value]
        case tuple():
            return tuple(_masked("", item) for item in value)
        case _:
            return value
