"""Transcript → OpenAI's verbose_json, and beside it `x_coverage` and word confidence, which its
clients carry along as extra attributes.

OpenAI's own clients in typed languages expect a number or a string in every field, never null:
what an engine does not know is 0 here, and null in the native document.
"""

from __future__ import annotations

import json
import math
from typing import Any

from voiceforge.speech.formats.format import RenderOptions
from voiceforge.speech.formats.json import coverage_document, word_document
from voiceforge.speech.formats.times import finite, to_ms, to_s
from voiceforge.speech.transcript import Segment, Transcript, Word
from voiceforge.speech.transcript.languages import language_name

_MS_PER_SEEK_FRAME = 10  # Whisper's `seek` counts mel frames


def render_verbose_json(transcript: Transcript, options: RenderOptions) -> str:
    document = verbose_document(transcript, words=options.words)
    return json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def verbose_document(transcript: Transcript, *, words: bool) -> dict[str, Any]:
    """The same as plain values. `words`: top-level word times were asked for."""
    document: dict[str, Any] = {
        "task": transcript.task,
        "language": _language(transcript),
        "duration": float(to_s(transcript.duration)),
        "text": transcript.text,
        "segments": [_segment(segment) for segment in transcript.segments],
    }
    if words:
        document["words"] = [_word(word) for word in transcript.words]
    document["usage"] = {"type": "duration", "seconds": math.ceil(to_s(transcript.duration))}
    document["x_coverage"] = coverage_document(transcript.coverage)
    return document


def _language(transcript: Transcript) -> str:
    """Its English name; a translation is English whatever was spoken."""
    if transcript.task == "translate":
        return "english"
    return language_name(transcript.language.code) if transcript.language else "unknown"


def _segment(segment: Segment) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": segment.id,
        "seek": to_ms(segment.start) // _MS_PER_SEEK_FRAME,
        "start": to_s(segment.start),
        "end": to_s(segment.end),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": finite(segment.temperature, 4) or 0.0,
        "avg_logprob": finite(segment.avg_logprob, 4) or 0.0,
        "compression_ratio": finite(segment.compression_ratio, 4) or 0.0,
        "no_speech_prob": finite(segment.no_speech_prob, 4) or 0.0,
    }
    if segment.channel is not None:
        document["channel"] = segment.channel
    if segment.speaker is not None:
        document["speaker"] = segment.speaker
    return document


def _word(word: Word) -> dict[str, Any]:
    """OpenAI's three keys; ours only where they say something."""
    document = word_document(word)
    if word.confidence is None:
        del document["confidence"]
    if not word.estimated:
        del document["estimated"]
    return document
