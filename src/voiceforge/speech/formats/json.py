"""Transcript → the native document: everything we know, under the names other programs rely on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from voiceforge.speech.formats.format import RenderOptions
from voiceforge.speech.formats.times import finite, to_s
from voiceforge.speech.transcript import Coverage, Segment, Transcript, Word


def render_json(transcript: Transcript, options: RenderOptions) -> str:
    return json.dumps(native_document(transcript), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def native_document(transcript: Transcript) -> dict[str, Any]:
    """The native result as plain values ready for JSON; times in seconds, three decimals."""
    language = transcript.language
    return {
        "text": transcript.text,
        "task": transcript.task,
        "language": language.code if language else None,
        "language_probability": finite(language.probability, 4) if language else None,
        "duration": to_s(transcript.duration),
        "segments": [segment_document(segment) for segment in transcript.segments],
        "words": [word_document(word) for word in transcript.words],
        "channels": transcript.channels,
        "coverage": coverage_document(transcript.coverage),
        "removed": [
            {"start": to_s(r.start), "end": to_s(r.end), "text": r.text, "reason": r.reason}
            for r in transcript.removed
        ],
        "warnings": [{"code": w.code, "message": w.message} for w in transcript.warnings],
        "model": {"id": transcript.model.id, "revision": transcript.model.revision},
        "processing_s": finite(transcript.processing_s, 3),
        "rtf": finite(transcript.rtf, 4),
        "cache_hit": transcript.cached_at is not None,
        "cached_at": _timestamp(transcript.cached_at),
    }


def _timestamp(moment: datetime | None) -> str | None:
    """ISO 8601, as RFC 3339 has it."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def word_document(word: Word) -> dict[str, Any]:
    document: dict[str, Any] = {
        "word": word.text,
        "start": to_s(word.start),
        "end": to_s(word.end),
        "confidence": finite(word.confidence, 4),
        "estimated": word.estimated,
    }
    if word.speaker is not None:
        document["speaker"] = word.speaker
    return document


def coverage_document(coverage: Coverage) -> dict[str, Any]:
    return {
        "speech_s": to_s(coverage.speech_s),
        "transcribed_s": to_s(coverage.transcribed_s),
        "gaps": [{"start": to_s(g.start), "end": to_s(g.end), "reason": g.reason} for g in coverage.gaps],
    }


def segment_document(segment: Segment) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": segment.id,
        "start": to_s(segment.start),
        "end": to_s(segment.end),
        "text": segment.text,
        "avg_logprob": finite(segment.avg_logprob, 4),
        "no_speech_prob": finite(segment.no_speech_prob, 4),
        "words": [word_document(word) for word in segment.words],
    }
    if segment.channel is not None:
        document["channel"] = segment.channel
    if segment.speaker is not None:
        document["speaker"] = segment.speaker
    return document
