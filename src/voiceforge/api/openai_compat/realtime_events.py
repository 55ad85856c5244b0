"""What a realtime client sends, from text frames to values."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voiceforge.api.openai_compat.realtime_session import InvalidField, MissingField
from voiceforge.errors import InvalidRequest

MOST_AUDIO_CHARS = 15 * 1024 * 1024
_MOST_ID_CHARS = 512
_SUPPORTED = (
    "session.update",
    "transcription_session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
)


@dataclass(frozen=True, slots=True)
class Append:
    audio: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    pass


@dataclass(frozen=True, slots=True)
class Clear:
    pass


@dataclass(frozen=True, slots=True)
class Update:
    """`beta`: it has the name it had in the beta, which settles the dialect."""

    fields: Mapping[str, Any]
    beta: bool


Asked = Append | Commit | Clear | Update


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """One frame: what it asks, or why it cannot be honoured. `id`: the client's own, for complaints."""

    id: str | None
    asked: Asked | InvalidRequest


def parse(frame: str | bytes) -> ClientEvent:
    """Raises nothing: a bad frame is an event too. Takes about 3 ms per MiB."""
    if isinstance(frame, bytes):
        return ClientEvent(
            None, InvalidRequest("Binary frames carry nothing here; audio goes into an event as base64.")
        )
    try:
        event = json.loads(frame)
    except (ValueError, RecursionError):
        return ClientEvent(None, InvalidRequest("The frame is not valid JSON."))
    if not isinstance(event, dict):
        return ClientEvent(None, InvalidRequest("An event is a JSON object with a type."))
    event_id = event.get("event_id")
    if not isinstance(event_id, str) or len(event_id) > _MOST_ID_CHARS or not _is_text(event_id):
        event_id = None
    try:
        return ClientEvent(event_id, _asked(event))
    except InvalidRequest as error:
        return ClientEvent(event_id, error)


def _is_text(value: str) -> bool:
    """JSON can escape halves of characters, which no frame of ours could carry."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _asked(event: Mapping[str, Any]) -> Asked:
    match event.get("type"):
        case "input_audio_buffer.append":
            return Append(_audio(event))
        case "input_audio_buffer.commit":
            return Commit()
        case "input_audio_buffer.clear":
            return Clear()
        case "session.update" | "transcription_session.update" as name:
            fields = event.get("session")
            if fields is None:
                raise MissingField("Missing required parameter: 'session'.", field="session")
            if not isinstance(fields, dict):
                raise InvalidField("Invalid type for 'session': expected an object.", field="session")
            return Update(fields, beta=name == "transcription_session.update")
        case None:
            raise MissingField("Missing required parameter: 'type'.", field="type")
        case other:
            shown = repr(other[:80]) if isinstance(other, str) else "that"
            raise InvalidField(
                f"Invalid value: {shown}. A transcription session knows: {', '.join(_SUPPORTED)}.",
                field="type",
            )


def _audio(event: Mapping[str, Any]) -> bytes:
    text = event.get("audio")
    if text is None:
        raise MissingField("Missing required parameter: 'audio'.", field="audio")
    if not isinstance(text, str):
        raise InvalidField("Invalid type for 'audio': expected base64 text.", field="audio")
    if len(text) > MOST_AUDIO_CHARS:
        raise InvalidField("Invalid 'audio': more than 15 MiB in one event.", field="audio")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidField("Invalid 'audio': it is not base64.", field="audio") from None
