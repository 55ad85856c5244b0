"""Recognised text of a window → timed words and sentence-sized segments. Pure arithmetic.

Where nothing better is known, words lie on the speech of the window in proportion to their
length, pauses left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from voiceforge.speech.transcript.types import Word

_SENTENCE_END = re.compile(r"[.?!…。？！]['\"”’)\]]*$")
_NO_SENTENCE_END = re.compile(
    r"^(?:mr|mrs|ms|dr|st|prof|sr|jr|vs|no|gen|col|capt|rev|hon|[a-z])\.$", re.IGNORECASE
)
# A recogniser may begin a sentence in lower case. A word this long is no abbreviation, but for these.
_LONG_WORD_AT_END = re.compile(r"^\W*[^\W\d_](?:[^\W\d_]|['’-]){3,}\.['\"”’)\]]*$")
_LONG_ABBREVIATION = re.compile(
    r"(?:approx|assn|assoc|asst|capt|corp|dept|equiv|figs|govt|incl|intl|misc|natl|pres|prof|secs|temp|univ|vols)\.$",
    re.IGNORECASE,
)
_LONG_PAUSE_S = 1.0
_LONGEST_SEGMENT_S = 12.0
_SEAM_S = 1e-6
"""Sums of fractions miss the end of a stretch by less; a word must not reach over a pause for that."""
_NATURAL_BREAK = re.compile(r"[,;:，、；：]['\"”’)\]]*$")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, in seconds from the start of the recording."""

    start: float
    end: float


def spread_words(text: str, speech: Sequence[Span], confidences: Sequence[float] = ()) -> tuple[Word, ...]:
    """Words of `text` on the spoken spans, in proportion to their length; all marked estimated."""
    parts = text.split()
    total_s = sum(span.end - span.start for span in speech)
    weights = [len(part) + 1 for part in parts]
    per_weight = total_s / max(1, sum(weights))
    words: list[Word] = []
    spoken = 0.0
    for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        start = _at(speech, spoken, leading=True)
        spoken += weight * per_weight
        end = max(start, _at(speech, spoken, leading=False))
        confidence = confidences[i] if len(confidences) == len(parts) else None
        words.append(Word(part, start, end, confidence, estimated=True))
    return tuple(words)


def _at(speech: Sequence[Span], spoken_s: float, *, leading: bool) -> float:
    """The moment at which `spoken_s` seconds of speech have passed. At the seam of two spans a word
    that begins there begins with the later one."""
    slack = -_SEAM_S if leading else _SEAM_S
    for span in speech:
        length = span.end - span.start
        if spoken_s <= length + slack:
            return min(span.start + spoken_s, span.end)
        spoken_s = max(0.0, spoken_s - length)
    return speech[-1].end if speech else 0.0


def with_confidences(words: Sequence[Word], confidences: Sequence[float]) -> tuple[Word, ...]:
    """The words with the engine's confidences, where there is one for each."""
    if len(confidences) != len(words):
        return tuple(words)
    return tuple(
        replace(word, confidence=confidence) for word, confidence in zip(words, confidences, strict=True)
    )


def sentences(words: Sequence[Word]) -> list[tuple[Word, ...]]:
    """Cut at sentence ends, at pauses of a second, and at a comma once a sentence has run too long."""
    groups: list[list[Word]] = [[]]
    for i, word in enumerate(words):
        group = groups[-1]
        group.append(word)
        following = words[i + 1] if i + 1 < len(words) else None
        if following is None:
            break
        too_long = word.end - group[0].start >= _LONGEST_SEGMENT_S and _NATURAL_BREAK.search(word.text)
        if _ends_sentence(word, following) or following.start - word.end >= _LONG_PAUSE_S or too_long:
            groups.append([])
    return [tuple(group) for group in groups if group]


def _ends_sentence(word: Word, following: Word) -> bool:
    if not _SENTENCE_END.search(word.text) or _NO_SENTENCE_END.match(word.text):
        return False
    if not following.text[:1].islower():
        return True
    return bool(_LONG_WORD_AT_END.search(word.text)) and not _LONG_ABBREVIATION.search(word.text)
