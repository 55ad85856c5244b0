"""Transcript → WebVTT: escaped text, the speaker as a voice span."""

from __future__ import annotations

from voiceforge.speech.formats.cues import Cue, lay_out
from voiceforge.speech.formats.format import RenderOptions
from voiceforge.speech.formats.plain import one_line, voice_label
from voiceforge.speech.formats.times import clock
from voiceforge.speech.transcript import Transcript


def render_vtt(transcript: Transcript, options: RenderOptions) -> str:
    blocks = ["WEBVTT\n"]
    for cue in lay_out(transcript, options.subtitles):
        times = f"{clock(cue.start_ms, '.')} --> {clock(cue.end_ms, '.')}"
        blocks.append(f"{times}\n{_voice_tag(cue)}{_escaped(chr(10).join(cue.lines))}\n")
    return "\n".join(blocks)


def _voice_tag(cue: Cue) -> str:
    channel, speaker = cue.voice
    name = one_line(speaker or "") if channel is None else voice_label(channel, speaker)
    return f"<v {_escaped(name)}>" if name else ""


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
