"""Text of one window → the same text without the loops a recogniser ran into, and what was cut out.

A decoder that loses the thread says its last words over and over until its token limit. People
repeat themselves too, so repetition alone is not enough: it must be more than could have been said
in the time, or more than people do. Knows no language.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """Where repetition stops being speech. A phrase of p words said r times is a loop if

    - it was said `hasty_repeats` times (a single word `hasty_word_repeats`) in a text faster than
      `fastest_letters_per_s`;
    - or the text ends in it, it was said `brisk_repeats` times (`brisk_word_repeats`) and the text is
      faster than `brisk_letters_per_s`: slow enough to be read out, but chants and refrains are slower;
    - or, at any speed, it was said `sentence_repeats` times if it has `sentence_words` or more,
      `phrase_repeats` times if it is shorter, `word_repeats` times if it is a single word: more than
      choruses, laughter, counting or a telephone number have.

    Speeds from Moonshine tiny on 195 clips of speech (median 12 letters a second, the fastest of more than
    half a second 19) and on 2,600 pieces of them cut anywhere, 155 of which it looped on.
    """

    fastest_letters_per_s: float = 20.0
    hasty_repeats: float = 2.5
    hasty_word_repeats: float = 3.0
    brisk_letters_per_s: float = 15.0
    brisk_repeats: float = 4.0
    brisk_word_repeats: float = 6.0
    sentence_words: int = 6
    sentence_repeats: float = 4.0
    phrase_repeats: float = 6.0
    word_repeats: float = 12.0
    longest_phrase: int = 30


@dataclass(frozen=True, slots=True)
class LoopFinding:
    """`kept`: the text with each loop's words said once. `removed`: what was cut, in order."""

    kept: str
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Token:
    key: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Tokens first..last (not included) repeat with the given period."""

    first: int
    last: int
    period: int

    @property
    def repeats(self) -> float:
        return (self.last - self.first) / self.period


# Scripts written without spaces count by the character, as do notes and other signs.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(
    rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+(?:['’](?:(?![{_UNSPACED}])\w)+)*|[^\w\s!-/:-@\[-`{{-~]"
)
_PHRASE_END = re.compile(r"[.,;:!?…。，、！？]")
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_DANGLING = " ,;:-–—"

_UNSPACED_LETTERS = 2.5
"""What one such character weighs in Latin letters: 8 of them a second is as fast as Japanese gets."""
_DIGIT_LETTERS = 2.5
"""Likewise a digit: 1862 is said with as many sounds as ten letters have."""
_WORD_LETTERS = 2.85
"""What a word weighs at least: seven words a second are as hasty as the limit, however short."""


def strip_loops(text: str, duration_s: float, limits: LoopLimits | None = None) -> LoopFinding:
    """Cut every repetition loop down to its first round.

    Args:
        text: what was recognised in one window.
        duration_s: length of that window in seconds; 0 if it is not known.
    """
    limits = limits or LoopLimits()
    tokens = [_Token(m.group().casefold(), m.start(), m.end()) for m in _TOKEN.finditer(text)]
    alive = list(range(len(tokens)))
    while True:
        keys = [tokens[i].key for i in alive]
        speed = sum(map(_letters, keys)) / duration_s if duration_s > 0 else 0.0
        loops = [run for run in _runs(keys, limits.longest_phrase) if _is_loop(run, keys, speed, limits)]
        if not loops:
            break
        worst = max(loops, key=lambda run: (run.last - run.first, -run.period))
        first_round = [tokens[i] for i in alive[worst.first : worst.first + worst.period]]
        keep_until = worst.first + _whole_phrase(text, first_round)
        del alive[keep_until : _end_of_echo(keys, worst)]
    return _finding(text, tokens, set(alive))


def _letters(key: str) -> float:
    if _UNSPACED_CHARACTER.match(key):
        return _UNSPACED_LETTERS
    return max(_WORD_LETTERS, sum(_DIGIT_LETTERS if c.isdigit() else 1.0 for c in key))


def _runs(keys: list[str], longest_phrase: int) -> Iterator[_Run]:
    """Every stretch of at least two rounds of the same words."""
    for period in range(1, min(longest_phrase, len(keys) // 2) + 1):
        first = 0
        for i in range(period, len(keys) + 1):
            if i < len(keys) and keys[i] == keys[i - period]:
                continue
            if i - first >= 2 * period:
                yield _Run(first, i, period)
            first = i - period + 1


def _is_loop(run: _Run, keys: list[str], letters_per_s: float, limits: LoopLimits) -> bool:
    single = run.period == 1
    if run.period >= limits.sentence_words:
        enough = limits.sentence_repeats
    else:
        enough = limits.word_repeats if single else limits.phrase_repeats
    if letters_per_s > limits.brisk_letters_per_s and _end_of_echo(keys, run) == len(keys):
        enough = min(enough, limits.brisk_word_repeats if single else limits.brisk_repeats)
    if letters_per_s > limits.fastest_letters_per_s:
        enough = min(enough, limits.hasty_word_repeats if single else limits.hasty_repeats)
    return run.repeats >= enough


def _whole_phrase(text: str, first_round: list[_Token]) -> int:
    """How many tokens of the first round to keep: up to its last comma or full stop, so that
    "1862, and | 1862, and" does not leave an "and"."""
    for count in range(len(first_round) - 1, 0, -1):
        between = text[first_round[count - 1].end : first_round[count].start]
        if _PHRASE_END.search(between):
            return count
    return len(first_round)


def _end_of_echo(keys: list[str], run: _Run) -> int:
    """Where the loop ends: with the text, if nothing but its own words follows, the last perhaps cut off."""
    own = set(keys[run.first : run.last])
    *after, last = keys[run.last :] or [""]
    is_echo = own.issuperset(after) and any(word.startswith(last) for word in own)
    return len(keys) if is_echo else run.last


def _finding(text: str, tokens: list[_Token], alive: set[int]) -> LoopFinding:
    if len(alive) == len(tokens):
        return LoopFinding(text)
    kept: list[str] = []
    removed: list[str] = []
    start = 0
    for is_alive, group in itertools.groupby(range(len(tokens)), key=alive.__contains__):
        *_, last = group
        end = tokens[last + 1].start if last + 1 < len(tokens) else len(text)
        (kept if is_alive else removed).append(text[start:end].strip())
        start = end
    ended_inside = len(tokens) - 1 not in alive
    joined = " ".join(kept)
    return LoopFinding(joined.rstrip(_DANGLING) if ended_inside else joined, tuple(removed))
