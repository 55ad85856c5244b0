"""Our errors over a line, and back as what they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from voiceforge.errors import DependencyMissing, InvalidAudio, InvalidRequest, VoiceForgeError
from voiceforge.infra.audiohost.line import Garbled


def error_to_json(error: VoiceForgeError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "field": error.field,
        "choices": error.choices,
        "retry_after_s": error.retry_after_s,
    }


def error_from_json(told: Mapping[str, Any]) -> VoiceForgeError:
    """
    Raises:
        Garbled: it is none of the errors that can come over a line.
    """
    try:
        kind = {found.code: found for found in _family(InvalidAudio, InvalidRequest, DependencyMissing)}[
            told["code"]
        ]
        return kind(
            told["message"],
            field=told["field"],
            choices=told["choices"],
            retry_after_s=told["retry_after_s"],
        )
    except (KeyError, TypeError) as error:
        raise Garbled from error


def _family(*heads: type[VoiceForgeError]) -> Iterator[type[VoiceForgeError]]:
    for head in heads:
        yield head
        yield from _family(*head.__subclasses__())
