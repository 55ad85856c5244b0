"""Partly known word spans → words without holes: what was not measured is put between its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voiceforge.speech.transcript.types import Word


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in seconds; `sure` where it was measured on a known pronunciation."""

    start: float
    end: float
    sure: bool = True


def proportional_words(text: str, start: float, end: float) -> tuple[Word, ...]:
    """Spread the words of `text` over start..end seconds by their length in characters; all estimated."""
    return _spread(text.split(), start, max(start, end))


def place_words(texts: Sequence[str], spans: Sequence[Span | None], duration: float) -> tuple[Word, ...]:
    """Give every word a time inside 0..duration seconds.

    Args:
        texts: the words as written.
        spans: one per word, in time order where they exist; None where nothing is known.
    """
    words: list[Word] = []
    waiting: list[str] = []
    now = 0.0
    for text, span in zip(texts, spans, strict=True):
        if span is None:
            waiting.append(text)
            continue
        start = min(max(span.start, now), duration)
        end = min(max(span.end, start), duration)
        words += _spread(waiting, _not_before(now, start, len(waiting)), start)
        waiting = []
        words.append(Word(text, start, end, estimated=not span.sure))
        now = end
    words += _spread(waiting, now, min(duration, now + _GUESSED_WORD_S * len(waiting)))
    return tuple(words)


_GUESSED_WORD_S = 0.4
"""The most an unmeasured word is given in a pause: about the length of a spoken English word."""


def _not_before(earliest: float, until: float, count: int) -> float:
    return max(earliest, until - _GUESSED_WORD_S * count)


def _spread(texts: Sequence[str], start: float, end: float) -> tuple[Word, ...]:
    total = sum(map(len, texts))
    words: list[Word] = []
    at, seen = start, 0
    for text in texts:
        seen += len(text)
        # the last one ends exactly at `end`: sums of fractions would overshoot it
        until = end if seen == total else min(end, start + (end - start) * seen / total)
        words.append(Word(text, at, until, estimated=True))
        at = until
    return tuple(words)
