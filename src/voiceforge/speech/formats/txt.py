"""Transcript → plain text; one labelled paragraph per turn where speakers or channels are known."""

from __future__ import annotations

from voiceforge.speech.formats.format import RenderOptions
from voiceforge.speech.formats.plain import one_line, voice_label
from voiceforge.speech.transcript import Transcript
from voiceforge.speech.transcript.timeline import timed_text


def render_txt(transcript: Transcript, options: RenderOptions) -> str:
    turns = _turns(transcript)
    if all(label is None for label, _ in turns):
        text = transcript.text.strip()
        return f"{text}\n" if text else ""
    return "".join(f"{label}: {text}\n" if label else f"{text}\n" for label, text in turns)


def _turns(transcript: Transcript) -> list[tuple[str | None, str]]:
    """(label, text) of each stretch that one voice says before another begins."""
    turns: list[tuple[str | None, str]] = []
    for segment in sorted(transcript.segments, key=lambda s: (s.start, s.end)):
        timed = timed_text(segment)
        bounds = [offset for offset, _ in timed.speakers] + [len(timed.text)]
        for (begin, speaker), end in zip(timed.speakers, bounds[1:], strict=True):
            text = one_line(timed.text[begin:end])
            label = voice_label(segment.channel, speaker)
            if text and turns and turns[-1][0] == label:
                turns[-1] = (label, f"{turns[-1][1]} {text}")
            elif text:
                turns.append((label, text))
    return turns
