"""From OpenAI's fields to our options, and from our transcript to OpenAI's documents."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from voiceforge.api.http.languages import code_of
from voiceforge.api.openai_compat import schemas
from voiceforge.errors import InvalidRequest, UnsupportedOption
from voiceforge.speech.options import TranscribeOptions, VadOptions
from voiceforge.speech.transcript import Transcript

_STREAMED_FORMATS = ("json", "text")


@dataclass(frozen=True, slots=True)
class Wish:
    """What one request asks for, in our words. `notes` are wishes accepted but not honoured."""

    model: str | None
    options: TranscribeOptions
    response_format: schemas.ResponseFormat
    segments: bool
    words: bool
    stream: bool = False
    notes: tuple[schemas.Warned, ...] = ()


def transcription_wish(fields: schemas.TranscriptionFields, defaults: TranscribeOptions) -> Wish:
    """
    Raises:
        UnsupportedOption: something that exists at OpenAI and not here.
        InvalidRequest: fields that contradict each other.
    """
    _refuse_speakers(fields)
    granularities = fields.timestamp_granularities
    if granularities and fields.response_format != "verbose_json":
        raise InvalidRequest(
            "timestamp_granularities needs response_format=verbose_json", field="timestamp_granularities"
        )
    if fields.stream and fields.response_format not in _STREAMED_FORMATS:
        raise UnsupportedOption(
            f"stream=true sends events, not {fields.response_format}; ask for json or text",
            field="response_format",
            choices=_STREAMED_FORMATS,
        )
    language, notes = _language(fields)
    if "logprobs" in fields.include:
        notes.append(_ignored("include[]=logprobs: this server has no log probabilities per token"))
    words = "word" in granularities
    return Wish(
        model=fields.model,
        options=replace(
            defaults,
            language=language,
            words=words,
            prompt=fields.prompt,
            keyterms=tuple(fields.keywords),
            temperature=fields.temperature or None,
            vad=_vad(fields.chunking_strategy, defaults.vad),
        ),
        response_format=fields.response_format,
        segments="segment" in granularities or not words,
        words=words,
        stream=fields.stream,
        notes=tuple(notes),
    )


def translation_wish(fields: schemas.TranslationFields, defaults: TranscribeOptions) -> Wish:
    return Wish(
        model=fields.model,
        # Temperature 0 is what clients send by default, and means at OpenAI what None means here: start at
        # 0 and raise it where the result looks wrong.
        options=replace(
            defaults, task="translate", prompt=fields.prompt, temperature=fields.temperature or None
        ),
        response_format=fields.response_format,
        segments=True,
        words=False,
    )


def _refuse_speakers(fields: schemas.TranscriptionFields) -> None:
    if fields.response_format == "diarized_json":
        raise UnsupportedOption(
            "response_format diarized_json needs speaker diarization, which this server does not have",
            field="response_format",
            choices=("json", "text", "srt", "verbose_json", "vtt"),
        )
    for name in ("known_speaker_names", "known_speaker_references"):
        if getattr(fields, name):
            raise UnsupportedOption(
                f"{name} needs speaker diarization, which this server does not have", field=name
            )


def _language(fields: schemas.TranscriptionFields) -> tuple[str | None, list[schemas.Warned]]:
    if fields.language is not None:
        return code_of(fields.language), []
    codes = list(dict.fromkeys(code_of(written) for written in fields.languages))
    if len(codes) > 1:
        return None, [_ignored("languages[]: more than one was named, the language was left open")]
    return (codes[0] if codes else None), []


def _ignored(message: str) -> schemas.Warned:
    return schemas.Warned(code="option_ignored", message=message)


def _vad(strategy: object, defaults: VadOptions) -> VadOptions:
    if not isinstance(strategy, schemas.ServerVad):
        return defaults
    wishes = {
        "threshold": strategy.threshold,
        "padding_ms": strategy.prefix_padding_ms,
        "min_silence_ms": strategy.silence_duration_ms,
    }
    return replace(defaults, **{name: value for name, value in wishes.items() if value is not None})  # type: ignore[arg-type]


def json_document(transcript: Transcript, notes: tuple[schemas.Warned, ...]) -> schemas.JsonOut:
    return schemas.JsonOut(
        text=transcript.text,
        languages=languages(transcript),
        usage=schemas.DurationUsage(seconds=math.ceil(transcript.duration)),
        x_warnings=warnings(transcript, notes),
    )


def verbose_document(rendered: str, transcript: Transcript, wish: Wish) -> dict[str, Any]:
    """What the `verbose_json` format gives, without what was not asked for, and with our notes.

    What was not asked for is left out rather than null: clients in typed languages expect lists.
    """
    document: dict[str, Any] = json.loads(rendered)
    if not wish.segments:
        del document["segments"]
    document["x_model"] = transcript.model.id
    document["x_warnings"] = [note.model_dump() for note in warnings(transcript, wish.notes)]
    return document


def languages(transcript: Transcript) -> list[schemas.DetectedLanguage]:
    return [schemas.DetectedLanguage(code=transcript.language.code)] if transcript.language else []


def warnings(transcript: Transcript, notes: tuple[schemas.Warned, ...]) -> list[schemas.Warned]:
    return [*notes, *(schemas.Warned(code=one.code, message=one.message) for one in transcript.warnings)]
