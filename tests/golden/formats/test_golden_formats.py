"""Every format of one conversation, byte for byte.

After a wanted change: UPDATE_GOLDEN=1 pytest tests/golden/formats, then read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from voiceforge.speech.formats import FORMATS, render
from voiceforge.speech.transcript import (
    Coverage,
    Gap,
    Language,
    ModelRef,
    Removal,
    Segment,
    Transcript,
    TranscriptWarning,
    Word,
)

HERE = Path(__file__).parent


def _timed(identifier: int, start: float, text: str, *, speaker: str | None = None) -> Segment:
    """Words of 60 ms a character, half a second after a full stop."""
    words: list[Word] = []
    now = start
    for token in text.split():
        end = now + 0.06 * len(token)
        words.append(Word(token, now, end, confidence=0.9, estimated=token == "20%", speaker=speaker))
        now = end + (0.5 if token[-1] in ".?!" else 0.02)
    return Segment(
        identifier,
        start,
        words[-1].end,
        text,
        avg_logprob=-0.2345678,
        no_speech_prob=0.0123,
        words=tuple(words),
        speaker=speaker,
        tokens=(50364, 2425),
        compression_ratio=1.25,
    )


def _document(*segments: Segment, channels: int = 1) -> Transcript:
    return Transcript(
        text=" ".join(s.text for s in segments),
        segments=segments,
        duration=40.0004,
        language=Language("en", 0.98765),
        coverage=Coverage(18.4, 17.1, (Gap(30.25, 31.5, "no_text"),)),
        model=ModelRef("moonshine-tiny-en", "0.0.49"),
        removed=(Removal(33.0, 36.0, "the the the the", "repetition_loop"),),
        warnings=(TranscriptWarning("clipping", "3.1 % of the samples are at full scale."),),
        processing_s=0.81239,
        rtf=0.0203,
        channels=channels,
    )


MONOLOGUE = _document(
    _timed(
        0,
        0.5104,
        "Printing, in the only sense with which we are at present concerned, differs from most if not from "
        "all the arts and crafts represented in the exhibition.",
    ),
    _timed(1, 12.25, "Is 3 < 5 & 20% --> enough? Yes."),
    Segment(2, 20.0006, 24.9994, "客観的実在の判断的知識が成立するのである。「本当に」そうだろうか。"),
    Segment(3, 26.0, 27.0, "مرحبا بكم في هذا البرنامج"),
)
DIALOGUE = _document(
    _timed(0, 1.0, "Good morning, how can I help you?", speaker="A"),
    _timed(1, 3.2, "I would like to book a table for four people, please, tonight at eight.", speaker="B"),
    _timed(2, 8.6, "Sure.", speaker="A"),
)
CALL = _document(
    Segment(0, 0.4, 2.2, "Hello, who is speaking?", channel=0),
    Segment(1, 2.0, 4.5, "It's me. Can you hear me well?", channel=1),
    Segment(2, 3.9, 5.0, "Yes, I can.", channel=0),
    channels=2,
)
DOCUMENTS = {"monologue": MONOLOGUE, "dialogue": DIALOGUE, "call": CALL}


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_rendered_files_are_as_agreed(name: str, fmt: str) -> None:
    path = HERE / f"{name}.{fmt}"
    body = render(DOCUMENTS[name], fmt, words=True).encode()
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(body)
    assert path.exists(), "no golden file: run with UPDATE_GOLDEN=1 and read what it writes"
    assert body.decode() == path.read_bytes().decode()


def test_every_format_has_its_golden_files() -> None:
    kept = {path.name for path in HERE.iterdir() if path.suffix not in (".py", ".pyc") and path.is_file()}
    assert kept == {f"{name}.{fmt}" for name in DOCUMENTS for fmt in FORMATS}
