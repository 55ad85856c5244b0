"""Transcript → atoms: the smallest pieces a subtitle may be broken into, each with its time and voice.

Text with spaces breaks at them. Chinese and Japanese break between characters, except before closing
and after opening punctuation. What is wider than a line is cut, never through a combined character.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from voiceforge.speech.formats.times import to_ms
from voiceforge.speech.transcript import Transcript
from voiceforge.speech.transcript.timeline import TimedText, timed_text


class Voice(NamedTuple):
    """Who an atom belongs to; a cue holds one voice only."""

    channel: int | None
    speaker: str | None


@dataclass(frozen=True, slots=True)
class Atom:
    """`space_before`: a space parts it from the atom before it on the same line. `width` in columns.
    `start_ms` <= `end_ms`, both within the recording."""

    text: str
    width: int
    space_before: bool
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Run:
    """What one voice says until another one begins; atoms in order of text and time."""

    voice: Voice
    atoms: list[Atom] = field(default_factory=list)


_UNSEEN = frozenset(("Cc", "Cf", "Cs"))
_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = frozenset("🏻🏼🏽🏾🏿")
_NEVER_FIRST = frozenset(
    "、。，．,.!?！？：；:;」』）】〕〉》〗”’)]}…‥・ーぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ々％%"
)
_NEVER_LAST = frozenset("「『（【〔〈《〖“‘([{¥￥$＄")


def display_width(text: str) -> int:
    """Columns: wide characters count two, combining marks and other invisible ones none."""
    return sum(_columns(char) for char in text)


def runs(transcript: Transcript, max_width: int) -> list[Run]:
    """All the text, parted where the voice changes. Channels are interleaved by time."""
    duration_ms = max(to_ms(transcript.duration), 0)
    result: list[Run] = []
    latest_ms: dict[int | None, int] = {}
    for segment in sorted(transcript.segments, key=lambda s: (s.start, s.end)):
        timed = timed_text(segment)
        for begin, end, space_before in _breakable(timed.text, max_width):
            voice = Voice(segment.channel, timed.speaker_at(begin))
            start = max(latest_ms.get(voice.channel, 0), to_ms(timed.time_from(begin)))
            atom = _atom(timed, begin, end, space_before, min(start, duration_ms), duration_ms)
            latest_ms[voice.channel] = atom.start_ms
            if not result or result[-1].voice != voice:
                result.append(Run(voice))
            result[-1].atoms.append(atom)
    return result


def _atom(
    timed: TimedText, begin: int, end: int, space_before: bool, start_ms: int, duration_ms: int
) -> Atom:
    text = _visible(timed.text[begin:end])
    end_ms = min(max(to_ms(timed.time_until(end)), start_ms), duration_ms)
    return Atom(text, display_width(text), space_before, start_ms, end_ms)


def _breakable(text: str, max_width: int) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, space before) of each atom; the first atom of a text counts as after a space."""
    cursor = 0
    for token in text.split():
        begin = text.index(token, cursor)
        cursor = begin + len(token)
        if all(unicodedata.category(char) in _UNSEEN for char in token):
            continue
        space_before = True
        for first, last in _pieces(token, max_width):
            yield begin + first, begin + last, space_before
            space_before = False


def _pieces(token: str, max_width: int) -> Iterator[tuple[int, int]]:
    """Split one token without spaces at the places where its script allows a line break."""
    first, width = 0, 0
    previous = ""
    for begin, end in _clusters(token):
        cluster = token[begin:end]
        columns = display_width(cluster)
        if begin > first and (_may_break(previous, cluster) or width + columns > max_width):
            yield first, begin
            first, width = begin, 0
        width += columns
        previous = cluster
    yield first, len(token)


def _may_break(before: str, after: str) -> bool:
    if not (_ideographic(before[0]) or _ideographic(after[0])) or not display_width(before):
        return False
    return before[-1] not in _NEVER_LAST and after[0] not in _NEVER_FIRST


def _ideographic(char: str) -> bool:
    """Scripts and their punctuation that are written without spaces; Hangul has spaces."""
    return _columns(char) == 2 and not ("\uac00" <= char <= "\ud7a3")


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """What a reader sees as one character: a base with its marks, or emoji joined together."""
    begin = 0
    for index in range(1, len(text)):
        joined = text[index - 1] == _ZERO_WIDTH_JOINER or text[index] in _SKIN_TONES
        if not joined and _columns(text[index]) > 0:
            yield begin, index
            begin = index
    if text:
        yield begin, len(text)


def _columns(char: str) -> int:
    if " " <= char <= "~":
        return 1
    if unicodedata.category(char) in ("Mn", "Me", "Cf", "Cc", "Cs"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def _visible(text: str) -> str:
    return "".join(char for char in text if unicodedata.category(char) not in ("Cc", "Cs"))
