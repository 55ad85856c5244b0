"""Hypotheses of a growing utterance → words that never change again.

LocalAgreement-2 (Macháček et al. 2023, "Turning Whisper into Real-Time Transcription System"): words on which
two hypotheses in a row agree are stable. Of those the last is held back, since its ending and what follows it
are decided together. What is compared is what is displayed, punctuation included.
"""

from __future__ import annotations

from collections.abc import Sequence


class Agreement:
    """Of one utterance. Words are as written, in order, without spaces."""

    def __init__(self) -> None:
        self._stable: list[str] = []
        self._shown: list[str] = []

    @property
    def stable(self) -> tuple[str, ...]:
        """They never change, and only ever become more."""
        return tuple(self._stable)

    def hear(self, words: Sequence[str], *, early: bool = False) -> tuple[str, ...]:
        """Take the next hypothesis; returns what is to be displayed of it, which begins with the stable
        words.

        Args:
            early: little was heard so far, and much of it may be heard otherwise soon: it agrees with the
                one before only where it repeats all of it.
        """
        shown = self.show(words)
        agreed = _common_prefix(self._shown, shown)
        if early and agreed < len(self._shown):
            agreed = 0
        self._stable = list(shown[: max(len(self._stable), agreed - 1)])
        self._shown = list(shown)
        return shown

    def begin_with(self, words: Sequence[str]) -> None:
        """It begins with these, whatever was heard so far; nothing of that must have been told."""
        self._shown = [*words, *self._shown[taken_up(words, self._shown) :]]
        self._stable = list(words)

    def show(self, words: Sequence[str]) -> tuple[str, ...]:
        """What would be displayed of a hypothesis that counts for nothing."""
        return (*self._stable, *words[taken_up(self._stable, words) :])


def taken_up(said: Sequence[str], words: Sequence[str]) -> int:
    """How many of the first of `words` say what `said` says, perhaps in other words.

    Both are spelled out in letters and digits. Of all the places where a word of `words` ends, it is the one
    up to which the edit distance to the whole of `said` is the least, words more or fewer counted in; of
    several, the one where both are most nearly of one length.
    """
    said_keys, keys = [_key(word) for word in said], [_key(word) for word in words]
    alike = _common_prefix(said_keys, keys)
    letters = "".join(said_keys[alike:])
    if not letters:
        return alike
    row = list(range(len(letters) + 1))
    length = 0
    best, best_rank = alike, (row[-1] + _LETTERS_PER_WORD * (len(said) - alike), len(letters))
    for taken, key in enumerate(keys[alike:], alike + 1):
        for letter in key:
            row = _next_row(row, letters, letter)
        length += len(key)
        rank = (row[-1] + _LETTERS_PER_WORD * abs(len(said) - taken), abs(length - len(letters)))
        if rank < best_rank:
            best, best_rank = taken, rank
        if length > 2 * len(letters) + _MOST_EXTRA_LETTERS:
            break
    return best


_LETTERS_PER_WORD = 2
"""What a word too many or too few weighs: one that was heard otherwise ("It", "That") is still that word."""
_MOST_EXTRA_LETTERS = 20
"""Further on the lengths differ by more than what any wording saves."""


def _next_row(row: list[int], letters: str, letter: str) -> list[int]:
    """One step of Levenshtein's distances, from `row` to that with one letter more."""
    following = [row[0] + 1]
    for i, other in enumerate(letters):
        following.append(min(row[i] + (letter != other), row[i + 1] + 1, following[i] + 1))
    return following


def _key(word: str) -> str:
    return "".join(filter(str.isalnum, word)).casefold()


def _common_prefix(a: Sequence[str], b: Sequence[str]) -> int:
    for i, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return i
    return min(len(a), len(b))
