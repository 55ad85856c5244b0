"""From our transcript to Deepgram's document."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from voiceforge.api.deepgram_compat.schemas import (
    AlternativeOut,
    ChannelOut,
    ListenOut,
    MetadataOut,
    ModelInfoOut,
    ResultsOut,
    UtteranceOut,
    WarningOut,
)
from voiceforge.api.deepgram_compat.wishes import Wish
from voiceforge.api.deepgram_compat.writing import (
    Spoken,
    confidence_of,
    paragraphs_document,
    search_document,
    spoken_in,
    text_of,
    utterances_of,
    word_documents,
)
from voiceforge.speech.transcript import ModelRef, Transcript

_MODELS = uuid.UUID("6f1f5e0a-5a3c-5c55-9d59-3a4f0f1b7e10")
"""Namespace of the ids that models have at this door."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the document says besides the text. created: with a time zone. family: of the model."""

    request_id: str
    sha256: str
    created: datetime
    family: str


def model_uuid(model: ModelRef) -> str:
    """The same for the same weights, on every server."""
    return str(uuid.uuid5(_MODELS, f"{model.id}@{model.revision}"))


def model_info(model: ModelRef, family: str) -> ModelInfoOut:
    return ModelInfoOut(name=model.id, version=model.revision, arch=family)


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def listen_document(transcript: Transcript, wish: Wish, answered: Answered) -> ListenOut:
    channels = range(transcript.channels) if wish.options.channels == "split" else (None,)
    replacements = wish.writing.replacements
    told = [spoken_in([s for s in transcript.segments if s.channel == one], replacements) for one in channels]
    known = model_uuid(transcript.model)
    return ListenOut(
        metadata=MetadataOut(
            request_id=answered.request_id,
            sha256=answered.sha256,
            created=timestamp(answered.created),
            duration=round(transcript.duration, 3),
            channels=len(told),
            models=[known],
            model_info={known: model_info(transcript.model, answered.family)},
            tags=list(wish.tags) or None,
            extra=wish.extra or None,
            warnings=[*wish.warnings, *_warnings(transcript)] or None,
        ),
        results=ResultsOut(
            channels=[_channel(words, transcript, wish) for words in told],
            utterances=None if wish.utterance_gap_s is None else _utterances(told, transcript, wish),
        ),
    )


def _channel(words: list[Spoken], transcript: Transcript, wish: Wish) -> ChannelOut:
    language = transcript.language
    code = language.code if language else None
    return ChannelOut(
        search=[search_document(query, words, code) for query in wish.search] or None,
        alternatives=[
            AlternativeOut(
                transcript=text_of(words, wish.writing, code),
                confidence=confidence_of(words),
                words=word_documents(words, wish.writing),
                paragraphs=paragraphs_document(words, wish.writing, code) if wish.paragraphs else None,
            )
        ],
        detected_language=code if wish.detect_language else None,
        language_confidence=round(language.probability, 4) if language and wish.detect_language else None,
    )


def _utterances(told: Sequence[list[Spoken]], transcript: Transcript, wish: Wish) -> list[UtteranceOut]:
    """Of all channels, in the order in which they begin."""
    code = transcript.language.code if transcript.language else None
    made = [
        UtteranceOut(
            start=round(words[0].start, 3),
            end=round(words[-1].end, 3),
            confidence=confidence_of(words),
            channel=channel,
            transcript=text_of(words, wish.writing, code),
            words=word_documents(words, wish.writing),
            id=str(uuid.uuid4()),
        )
        for channel, all_words in enumerate(told)
        for words in utterances_of(all_words, wish.utterance_gap_s or 0.0)
    ]
    return sorted(made, key=lambda one: (one.start, one.channel))


def _warnings(transcript: Transcript) -> list[WarningOut]:
    return [WarningOut(type=one.code, message=one.message) for one in transcript.warnings]
