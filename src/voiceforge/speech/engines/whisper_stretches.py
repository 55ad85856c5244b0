"""Tokens of one Whisper decode → the stretches of text between its timestamps, and where to go on. Pure.

The rules are OpenAI's (`whisper/transcribe.py`), as faster-whisper has them. Positions in audio are frames
of 10 ms, timestamp tokens count in steps of 20 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

FRAMES_PER_S = 100
FRAME_S = 0.01
_STEP_S = 0.02
_FRAMES_PER_STEP = 2


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens, timestamps included, with their times in seconds from the start of the window."""

    start: float
    end: float
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """stretches: at least one. frames: how much of the audio is done. to_the_end: the last timestamp
    stands alone, which means that nothing is said after it."""

    stretches: tuple[Stretch, ...]
    frames: int
    to_the_end: bool


def cut(tokens: Sequence[int], *, first_timestamp: int, offset_frames: int, frames: int) -> Cut:
    """Cut where one timestamp follows another: there a stretch ends and the next begins.

    Args:
        first_timestamp: id of the token for 0.00 s; all above are later ones.
        offset_frames: where in the window the audio of this decode begins. frames: how long it is.
    """
    offset_s = offset_frames * FRAME_S
    steps = [token - first_timestamp for token in tokens]  # below 0: text
    to_the_end = len(steps) >= 2 and steps[-2] < 0 <= steps[-1]
    ends = [at for at, (one, next_) in enumerate(pairwise(steps), 1) if one >= 0 and next_ >= 0]
    if not ends:
        times = [step for step in steps if step >= 0]
        duration_s = times[-1] * _STEP_S if times and times[-1] > 0 else frames * FRAME_S
        return Cut((Stretch(offset_s, offset_s + duration_s, tuple(tokens)),), frames, to_the_end)
    if to_the_end:
        ends.append(len(steps))
    stretches = tuple(
        Stretch(
            offset_s + steps[first] * _STEP_S,
            offset_s + steps[last - 1] * _STEP_S,
            tuple(tokens[first:last]),
        )
        for first, last in pairwise([0, *ends])
    )
    # What follows the last pair is unfinished: it is heard again from there.
    done = frames if to_the_end else steps[ends[-1] - 1] * _FRAMES_PER_STEP
    return Cut(stretches, done, to_the_end)
