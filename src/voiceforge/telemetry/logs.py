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
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, cast

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

_JSON = json.JSONEncoder(default=str, ensure_ascii=False)
_RULED_KEYS = frozenset(
    {"exc_info", "exception", "stack_info", "stack", "level", "logger", "timestamp", "message", "asctime"}
)
_HARMLESS_KINDS = frozenset({int, float, bool, type(None)})
_MOST_KEYS = 1000
_SECRET_KEY = re.compile(r"authorization|api_?key|token$|secret|passw|cookie|credential", re.IGNORECASE)
# No pattern below fits a text without one of these, and most texts have none.
_MAY_HOLD_SECRET = re.compile(r"[\s=@]")
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
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _own_values, *_shared_processors()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_renderers(pretty, target),
        ],
    )
    handler.setFormatter(formatter if pretty else _JsonLines(formatter))
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


class log_context:  # noqa: N801  # used as a function
    """Add `values` (such as request_id) to every line logged inside, in this task and its children."""

    def __init__(self, **values: str) -> None:
        self._values = values

    def __enter__(self) -> None:
        self._tokens = structlog.contextvars.bind_contextvars(**self._values)

    def __exit__(self, *_: object) -> None:
        structlog.contextvars.reset_contextvars(**self._tokens)


class _VoiceForgeHandler(logging.StreamHandler[TextIO]):
    """Told apart from handlers that others put on the root logger."""


class _JsonLines(logging.Formatter):
    """Most of our lines have nothing that any rule is about; those are written without asking every rule.

    Args:
        rules: makes all other lines.
    """

    def __init__(self, rules: logging.Formatter) -> None:
        super().__init__()
        self._rules = rules
        self._harmless_keys: dict[str, bool] = {}

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, object] | None = getattr(record, VALUES, None)
        if values is None or record.exc_info or record.args or not isinstance(record.msg, str):
            return self._rules.format(record)
        line = structlog.contextvars.merge_contextvars(None, "", {**values, "event": record.msg})
        if not all(map(self._is_harmless, line, line.values())):
            return self._rules.format(record)
        moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        own = {"level": record.levelname.lower(), "logger": record.name, "timestamp": moment}
        return _JSON.encode({**line, **own})

    def _is_harmless(self, key: str, value: object) -> bool:
        harmless = self._harmless_keys.get(key)
        if harmless is None:
            harmless = not (key in _RULED_KEYS or key.lower() in SPOKEN_KEYS or _SECRET_KEY.search(key))
            if len(self._harmless_keys) < _MOST_KEYS:
                self._harmless_keys[key] = harmless
        if not harmless:
            return False
        kind = type(value)
        if kind is str:
            return _MAY_HOLD_SECRET.search(cast(str, value)) is None
        return kind in _HARMLESS_KINDS or value == []


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        withhold_spoken,
    ]


def _renderers(pretty: bool, target: TextIO) -> list[Processor]:
    # Tracebacks are made text before masking, and without local variables: those hold transcripts.
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if pretty
        else structlog.processors.JSONRenderer(serializer=_to_json)
    )
    return [structlog.processors.format_exc_info, mask_secrets, renderer]


def _to_json(event: EventDict, **_: object) -> str:
    return _JSON.encode(event)


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
        case str() | int() | float() | None:
            return value
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
            if _MAY_HOLD_SECRET.search(value):
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
