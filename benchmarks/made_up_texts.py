"""Texts as long, and with words as common and as rare, as those of real transcripts; of made-up words.

Words are as common as Zipf's law has it, over 50,000 of them; a text has 100 words in the middle, a few have
thousands (log-normal).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np

_WORDS = 50_000
_MIDDLE_WORDS = 100
_SPREAD = 0.9
_FEWEST, _MOST = 10, 30_000
_AT_ONCE = 1_000
_SYLLABLES = [first + second for first in "bcdfghjklmnprstvwz" for second in "aeiou"]


def words() -> list[str]:
    """The most common first."""
    syllables = itertools.chain.from_iterable(
        itertools.product(_SYLLABLES, repeat=length) for length in itertools.count(2)
    )
    made = ["".join(parts) for parts in itertools.islice(syllables, 16 * _WORDS)]
    return random.Random(1).sample(made[: len(_SYLLABLES) ** 2], 2_000) + random.Random(2).sample(
        made[len(_SYLLABLES) ** 2 :], _WORDS - 2_000
    )


def texts(count: int) -> Iterator[str]:
    known = np.array(words(), dtype=object)
    chance = np.random.default_rng(1)
    shares = 1 / (np.arange(_WORDS) + 2.7)
    upto = np.cumsum(shares / shares.sum())
    for first in range(0, count, _AT_ONCE):
        lengths = chance.lognormal(np.log(_MIDDLE_WORDS), _SPREAD, min(_AT_ONCE, count - first))
        ends = np.cumsum(np.clip(lengths, _FEWEST, _MOST).astype(int))
        chosen = known[np.minimum(np.searchsorted(upto, chance.random(ends[-1])), _WORDS - 1)]
        for start, end in itertools.pairwise([0, *ends]):
            yield " ".join(chosen[start:end])
