"""A manifest (JSON lines) → the recordings to measure, each with what is said in it.

Keys read: `audio` (needed; from the manifest's folder), `text`, `language`, `duration`, `kind`, `raw`.
Other keys are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voiceforge.errors import InvalidRequest
from voiceforge.speech.options import RawFormat


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One recording.

    name: `audio` as the manifest writes it.
    text: "" where nothing is said; None where the words are not known, so nothing is scored.
    language: ISO code; several joined with `+` for speech that changes language.
    raw: how to read a file without a header.
    """

    name: str
    audio: Path
    text: str | None
    language: str | None = None
    duration: float | None = None
    kind: str = "speech"
    raw: RawFormat | None = None


def read_manifest(path: Path) -> list[ManifestEntry]:
    """All entries in order; blank lines are skipped.

    Raises:
        InvalidRequest: the file cannot be read, holds no entries, or a line (named by its number)
            is not what it should be.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InvalidRequest(f"cannot read the manifest: {error.strerror}", field="manifest") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("the manifest is not UTF-8 text", field="manifest") from error
    entries = [
        _entry(line, number, path.parent) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not entries:
        raise InvalidRequest("the manifest names no recordings", field="manifest")
    return entries


def _entry(line: str, number: int, folder: Path) -> ManifestEntry:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _malformed(number, "is not JSON") from error
    if not isinstance(row, dict):
        raise _malformed(number, "is not a JSON object")
    name = _typed(row, "audio", number, str)
    if not name:
        raise _malformed(number, "has no `audio`")
    duration = _typed(row, "duration", number, int, float)
    if duration is not None and not 0 <= duration < float("inf"):
        raise _malformed(number, "has a `duration` below 0 or without end")
    return ManifestEntry(
        name=name,
        audio=folder / name,
        text=_typed(row, "text", number, str),
        language=_typed(row, "language", number, str) or None,
        duration=duration,
        kind=_typed(row, "kind", number, str) or "speech",
        raw=_raw(_typed(row, "raw", number, dict), number),
    )


def _raw(value: Mapping[str, Any] | None, number: int) -> RawFormat | None:
    if value is None:
        return None
    rate = _typed(value, "rate", number, int)
    channels = _typed(value, "channels", number, int)
    try:
        return RawFormat(
            encoding=value.get("encoding"),  # type: ignore[arg-type]  # checked by RawFormat itself
            sample_rate_hz=16_000 if rate is None else rate,
            channels=1 if channels is None else channels,
        )
    except InvalidRequest as error:
        raise _malformed(number, f"has a `raw` that cannot be: {error.message}") from error


def _typed(row: Mapping[str, Any], key: str, number: int, *types: type) -> Any:
    """The value of `key`, of one of `types`, or None. True and false are no numbers here."""
    value = row.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, types)):
        raise _malformed(number, f"has a `{key}` of the wrong type")
    return value


def _malformed(number: int, what: str) -> InvalidRequest:
    return InvalidRequest(f"manifest line {number} {what}", field="manifest")
