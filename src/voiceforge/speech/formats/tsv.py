"""Transcript → tab-separated values as Whisper writes them: start and end in ms, text, a header line."""

from __future__ import annotations

from voiceforge.speech.formats.format import RenderOptions
from voiceforge.speech.formats.plain import one_line
from voiceforge.speech.formats.times import to_ms
from voiceforge.speech.transcript import Transcript


def render_tsv(transcript: Transcript, options: RenderOptions) -> str:
    rows = ["start\tend\ttext"]
    for segment in transcript.segments:
        rows.append(f"{to_ms(segment.start)}\t{to_ms(segment.end)}\t{one_line(segment.text)}")
    return "\n".join(rows) + "\n"
