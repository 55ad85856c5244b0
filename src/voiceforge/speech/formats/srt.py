"""Transcript → SubRip: numbered cues, comma before the milliseconds."""

from __future__ import annotations

from voiceforge.speech.formats.cues import lay_out
from voiceforge.speech.formats.format import RenderOptions
from voiceforge.speech.formats.times import clock
from voiceforge.speech.transcript import Transcript


def render_srt(transcript: Transcript, options: RenderOptions) -> str:
    blocks = []
    for number, cue in enumerate(lay_out(transcript, options.subtitles), start=1):
        # SubRip has no escapes, and readers take any line with this arrow for a time line.
        lines = "\n".join(line.replace("-->", "→") for line in cue.lines)
        blocks.append(f"{number}\n{clock(cue.start_ms, ',')} --> {clock(cue.end_ms, ',')}\n{lines}\n")
    return "\n".join(blocks)
