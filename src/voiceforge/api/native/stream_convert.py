"""From the query and the messages of `/v1/stream` to `StreamOptions`, and from events to messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from voiceforge.api.native.errors import error_body
from voiceforge.api.native.stream_schemas import Configure, StreamQuery
from voiceforge.errors import InvalidRequest, VoiceForgeError
from voiceforge.services.job_intake import Retention
from voiceforge.speech.options import CODECS, RAW_ENCODINGS, EncodedFormat, RawFormat, StreamOptions
from voiceforge.speech.transcript.stream_events import (
    Closed,
    Final,
    Flushed,
    Interim,
    Revision,
    SpeechEnded,
    SpeechStarted,
    StreamEvent,
    UtteranceEnd,
    Warned,
)
from voiceforge.speech.transcript.types import Segment

SegmentDocuments = Callable[[Sequence[Segment]], list[dict[str, Any]]]
"""Segments as our surface writes them."""

_OF_RAW_SAMPLES = ("sample_rate", "input_channels")


def stream_options(given: StreamQuery) -> StreamOptions:
    return changed_options(StreamOptions(), given)


def changed_options(options: StreamOptions, given: StreamQuery | Configure) -> StreamOptions:
    """`options` with what `given` names."""
    told = given.model_fields_set
    wishes = {name: getattr(given, name) for name in StreamOptions.__dataclass_fields__ if name in told}
    if "keyterm" in told:
        wishes["keyterms"] = tuple(given.keyterm)
    if given.language is not None:
        wishes["language"] = given.language.strip().lower()
    if given.vad_threshold is None:
        wishes.pop("vad_threshold", None)
    return replace(options, **wishes)


def audio_format(given: StreamQuery) -> RawFormat | EncodedFormat | None:
    """None: a container, found by its content.

    Raises:
        InvalidRequest: a rate or channels are told of audio that tells them itself.
    """
    encoding = given.encoding
    if encoding in RAW_ENCODINGS:
        return RawFormat(encoding, given.sample_rate or 16_000, given.input_channels or 1)
    for name in _OF_RAW_SAMPLES:
        if getattr(given, name) is not None and not (encoding == "opus" and name == "input_channels"):
            raise InvalidRequest(f"{name} describes raw samples, and {encoding} is none", field=name)
    if encoding in CODECS:
        return EncodedFormat(encoding, given.input_channels or 1)
    return None


def wanted_retention(given: StreamQuery) -> Retention | None:
    """Of what is kept of a stream; None: as the server's policy says.

    Raises:
        InvalidRequest: nothing is to be kept, and something is.
    """
    if given.polish is None:
        for name in ("keep_audio_s", "keep_text_s"):
            if getattr(given, name) is not None:
                raise InvalidRequest(f"{name} has no meaning without polish: nothing is kept", field=name)
        return None
    if given.retention == "none":
        raise InvalidRequest(
            "polish keeps the stream as a transcription, retention=none keeps nothing: leave one of them out",
            field="retention",
        )
    return Retention(given.keep_audio_s, given.keep_text_s)


def event_message(
    event: StreamEvent, number: int, documents: SegmentDocuments, *, kept_as: str | None
) -> dict[str, Any]:
    """One of `stream_schemas.SERVER_MESSAGES`.

    Args:
        number: the event's.
        kept_as: under which the stream was kept as a transcription, told with its end.
    """
    match event:
        case SpeechStarted():
            told = {"type": "speech_started", "channel": event.channel, "at": _seconds(event.at)}
        case Interim():
            told = _interim(event, documents)
        case Final():
            told = {
                "type": "final",
                "channel": event.channel,
                "utterance": event.utterance,
                "start": _seconds(event.start),
                "end": _seconds(event.end),
                "text": event.text,
                "segments": documents(event.segments),
                "language": event.language.code if event.language is not None else None,
                "language_probability": (
                    round(event.language.probability, 4) if event.language is not None else None
                ),
                "reason": event.reason,
            }
        case SpeechEnded():
            told = {
                "type": "speech_ended",
                "channel": event.channel,
                "start": _seconds(event.start),
                "end": _seconds(event.end),
            }
        case UtteranceEnd():
            told = {
                "type": "utterance_end",
                "channel": event.channel,
                "last_word_end": _seconds(event.last_word_end),
            }
        case Flushed():
            told = {"type": "flushed", "at": _seconds(event.at)}
        case Revision():
            told = {
                "type": "revision",
                "channel": event.channel,
                "first": event.first,
                "last": event.last,
                "text": event.text,
                "segments": documents(event.segments),
            }
        case Warned():
            told = {"type": "warning", "code": event.code, "message": event.message}
        case Closed():
            told = {"type": "closed", "duration": _seconds(event.duration), "transcription_id": kept_as}
    return {**told, "seq": number}


def error_message(error: VoiceForgeError, request_id: str, *, fatal: bool) -> dict[str, Any]:
    """A `StreamErrorOut`; the error is that of an HTTP reply."""
    return {"type": "error", **error_body(error, request_id), "fatal": fatal}


def _interim(event: Interim, documents: SegmentDocuments) -> dict[str, Any]:
    (document,) = documents([Segment(0, event.start, event.end, event.text, words=event.words)])
    return {
        "type": "interim",
        "channel": event.channel,
        "utterance": event.utterance,
        "start": document["start"],
        "end": document["end"],
        "text": event.text,
        "words": document["words"],
        "stable": event.stable,
    }


def _seconds(value: float) -> float:
    return round(value, 3)
