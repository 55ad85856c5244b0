"""Transcript → subtitle cues: where captions begin and end, and where their lines break.

Cue breaks are chosen for the whole of a run at once (least total cost), so that captions end with
sentences, then with clauses and pauses. Times are whole milliseconds from here on. Cues come out in
order, never overlap, stay within the recording and hold one voice each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from voiceforge.speech.formats.atoms import Atom, Voice, runs
from voiceforge.speech.formats.subtitles import SubtitleOptions
from voiceforge.speech.formats.times import to_ms
from voiceforge.speech.transcript import Transcript

# A pause this long always ends a cue: a caption that waits for the next words gives them away.
_SPLIT_PAUSE_MS = 1_500
_LONGEST_WAIT_MS = 1_000
# A pause this long reads like a comma.
_CLAUSE_PAUSE_MS = 300

_SENTENCE_END = frozenset(".!?…。！？．؟۔।")
_CLAUSE_END = frozenset(",;:、，；：،؛—–")
_CLOSING = "\"'”’»)]}」』）】"

# What a break or a flaw costs, in cues: one more cue is worth it to save more than that.
_NEW_CUE = 1.0
_AFTER_CLAUSE = 0.6
_MID_CLAUSE = 2.0
_SENTENCE_INSIDE = 0.5
_SENTENCE_INSIDE_THEN_PAUSE = 1.3
_SENTENCE_BEGUN = 0.7
_FRAGMENT = 1.0
_CLAUSE_BY_ITSELF = 0.5
_LONE_WORD = 1.5
_TOO_SHORT = 2.0
_TOO_FAST = 2.0
_TOO_FAST_AT_MOST = 3.0


@dataclass(frozen=True, slots=True)
class Cue:
    """One caption; `lines` hold neither line breaks nor control characters."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    voice: Voice


@dataclass(frozen=True, slots=True)
class _Draft:
    atoms: Sequence[Atom]
    voice: Voice

    @property
    def start_ms(self) -> int:
        return self.atoms[0].start_ms

    @property
    def spoken_ms(self) -> int:
        return max(atom.end_ms for atom in self.atoms) - self.start_ms

    @property
    def width(self) -> int:
        return _line_width(self.atoms)


def lay_out(transcript: Transcript, options: SubtitleOptions) -> list[Cue]:
    """All the text of the transcript as captions."""
    duration_ms = max(to_ms(transcript.duration), 0)
    drafts: list[_Draft] = []
    all_runs = runs(transcript, options.max_line_chars)
    for index, run in enumerate(all_runs):
        ends_ms = all_runs[index + 1].atoms[0].start_ms if index + 1 < len(all_runs) else duration_ms
        stretches = _parted_at_pauses(run.atoms)
        for position, atoms in enumerate(stretches):
            last = position + 1 == len(stretches)
            room_until_ms = ends_ms if last else stretches[position + 1][0].start_ms
            drafts += [_Draft(part, run.voice) for part in _divide(atoms, room_until_ms, options)]
    drafts.sort(key=lambda draft: draft.start_ms)
    starts = _spread([d.start_ms for d in drafts], [d.spoken_ms for d in drafts], duration_ms, options)
    cues: list[Cue] = []
    for index, (draft, start_ms) in enumerate(zip(drafts, starts, strict=True)):
        next_start_ms = starts[index + 1] if index + 1 < len(starts) else None
        end_ms = _end(draft, start_ms, next_start_ms, duration_ms, options)
        if end_ms - start_ms < to_ms(options.min_duration_s):
            # No room after it: what silence the cue before has left over serves as well.
            free_from_ms = cues[-1].end_ms + to_ms(options.min_gap_s) if cues else 0
            start_ms = min(start_ms, max(end_ms - to_ms(options.min_duration_s), free_from_ms))
        cues.append(Cue(start_ms, end_ms, _wrap(draft.atoms, options), draft.voice))
    return cues


def _parted_at_pauses(atoms: Sequence[Atom]) -> list[Sequence[Atom]]:
    parts: list[Sequence[Atom]] = []
    first = 0
    for index in range(1, len(atoms)):
        if atoms[index].start_ms - atoms[index - 1].end_ms >= _SPLIT_PAUSE_MS:
            parts.append(atoms[first:index])
            first = index
    parts.append(atoms[first:])
    return parts


def _divide(atoms: Sequence[Atom], room_until_ms: int, options: SubtitleOptions) -> list[Sequence[Atom]]:
    """The division into cues with the least cost, by dynamic programming over where cues begin."""
    best = [0.0] + [float("inf")] * len(atoms)
    came_from = [0] * (len(atoms) + 1)
    max_duration_ms = to_ms(options.max_duration_s)
    sentences = [_ends_with(atom.text, _SENTENCE_END) for atom in atoms]
    pauses = [b.start_ms - a.end_ms for a, b in pairwise(atoms)] + [_SPLIT_PAUSE_MS]
    breaks = [
        0.0 if sentence else _AFTER_CLAUSE if _is_clause_end(atom, pause) else _MID_CLAUSE
        for atom, sentence, pause in zip(atoms, sentences, pauses, strict=True)
    ]
    breaks[-1] = 0.0
    for first, begins in enumerate(atoms):
        lines, line_width, total_width = 1, 0, 0
        inside = 0.0
        for last in range(first, len(atoms)):
            atom = atoms[last]
            joined = int(atom.space_before and last > first)
            if last > first and line_width + joined + atom.width > options.max_line_chars:
                lines, line_width = lines + 1, atom.width
            else:
                line_width += joined + atom.width
            total_width += joined + atom.width
            too_long = atom.end_ms - begins.start_ms > max_duration_ms
            if last > first and (lines > options.max_lines or too_long):
                break
            cost = best[first] + _NEW_CUE + breaks[last] + inside
            if inside and breaks[last]:
                cost += _SENTENCE_BEGUN
            if 2 * total_width < options.max_line_chars:
                cost += _scrap(max(breaks[first - 1] if first else 0.0, breaks[last]), lone=first == last)
            until_ms = atoms[last + 1].start_ms if last + 1 < len(atoms) else room_until_ms
            cost += _haste(total_width, until_ms - begins.start_ms, options)
            if cost < best[last + 1]:
                best[last + 1], came_from[last + 1] = cost, first
            if sentences[last]:
                inside += (
                    _SENTENCE_INSIDE_THEN_PAUSE if pauses[last] >= _CLAUSE_PAUSE_MS else _SENTENCE_INSIDE
                )
    parts: list[Sequence[Atom]] = []
    end = len(atoms)
    while end:
        parts.append(atoms[came_from[end] : end])
        end = came_from[end]
    return parts[::-1]


def _scrap(break_cost: float, *, lone: bool) -> float:
    """What it costs that a caption of less than half a line is not a whole sentence. `break_cost`: of the
    worse of its two ends. `lone`: a single word."""
    if not break_cost:
        return 0.0
    return (_FRAGMENT if break_cost == _MID_CLAUSE else _CLAUSE_BY_ITSELF) + (_LONE_WORD if lone else 0.0)


def _haste(width: int, room_ms: int, options: SubtitleOptions) -> float:
    """What it costs to show `width` columns when the next words come after `room_ms`."""
    needed_ms = 1000 * width / options.max_chars_per_s
    short = _TOO_SHORT if room_ms < to_ms(options.min_duration_s) else 0.0
    if room_ms >= needed_ms:
        return short
    return short + min(_TOO_FAST * (needed_ms / max(room_ms, 1) - 1), _TOO_FAST_AT_MOST)


def _ends_with(text: str, marks: frozenset[str]) -> bool:
    return text.rstrip(_CLOSING)[-1:] in marks if text.rstrip(_CLOSING) else False


def _is_clause_end(atom: Atom, pause_ms: int) -> bool:
    return pause_ms >= _CLAUSE_PAUSE_MS or _ends_with(atom.text, _CLAUSE_END)


def _spread(starts: list[int], spoken: list[int], duration_ms: int, options: SubtitleOptions) -> list[int]:
    """Starts in strict order, also where two channels speak at once: a cue then waits for the one
    before it, but no longer than a second and half of its own speech. Otherwise nothing moves.
    """
    placed: list[int] = []
    free_from = 0
    for start, length in zip(starts, spoken, strict=True):
        waits_until = min(free_from, start + min(_LONGEST_WAIT_MS, length // 2))
        after_last = placed[-1] + 1 if placed else 0
        placed.append(max(start, after_last, waits_until))
        free_from = placed[-1] + min(length, to_ms(options.min_duration_s))
    latest = duration_ms
    for index in range(len(placed) - 1, -1, -1):
        latest = min(placed[index], latest - 1)
        placed[index] = latest
    if latest < 0:
        # More cues than milliseconds: times that cannot be right anyway.
        return [duration_ms * index // len(placed) for index in range(len(placed))]
    return placed


def _end(
    draft: _Draft, start_ms: int, next_start_ms: int | None, duration_ms: int, options: SubtitleOptions
) -> int:
    limit = duration_ms
    if next_start_ms is not None:
        # The gap gives way before the cue becomes too short to be seen.
        shortest = start_ms + to_ms(options.min_duration_s)
        limit = min(next_start_ms, max(next_start_ms - to_ms(options.min_gap_s), shortest))
    reading_ms = -int(-1000 * draft.width // options.max_chars_per_s)
    shown_ms = max(draft.spoken_ms, reading_ms, to_ms(options.min_duration_s))
    return max(start_ms, min(start_ms + min(shown_ms, to_ms(options.max_duration_s)), limit))


def _wrap(atoms: Sequence[Atom], options: SubtitleOptions) -> tuple[str, ...]:
    """As few lines as hold the text, as even as can be, broken after punctuation where it is near."""
    infinite = float("inf")
    # best[lines][end]: least cost of setting the first `end` atoms in that many lines.
    best = [[0.0] + [infinite] * len(atoms)]
    choices: list[list[int]] = [[0] * (len(atoms) + 1)]
    while best[-1][-1] == infinite or len(best) == 1:
        row, choice = [infinite] * (len(atoms) + 1), [0] * (len(atoms) + 1)
        for first in range(len(atoms)):
            if best[-1][first] == infinite:
                continue
            width = 0
            for last in range(first, len(atoms)):
                width += atoms[last].width + int(atoms[last].space_before and last > first)
                if width > options.max_line_chars and last > first:
                    break
                cost = best[-1][first] + width**2 + _line_break_cost(atoms, last, options)
                if cost < row[last + 1]:
                    row[last + 1], choice[last + 1] = cost, first
        best.append(row)
        choices.append(choice)
    lines: list[str] = []
    end = len(atoms)
    for choice in reversed(choices[1:]):
        lines.append(_line_text(atoms[choice[end] : end]))
        end = choice[end]
    return tuple(lines[::-1])


def _line_break_cost(atoms: Sequence[Atom], last: int, options: SubtitleOptions) -> float:
    """Lines may be a quarter of the width off balance if the first then ends with a clause."""
    if last + 1 == len(atoms) or _ends_with(atoms[last].text, _SENTENCE_END | _CLAUSE_END):
        return 0.0
    return 2 * (options.max_line_chars / 4) ** 2


def _line_width(atoms: Sequence[Atom]) -> int:
    return sum(atom.width + int(atom.space_before and index > 0) for index, atom in enumerate(atoms))


def _line_text(atoms: Sequence[Atom]) -> str:
    return "".join(
        (" " if atom.space_before and index else "") + atom.text for index, atom in enumerate(atoms)
    )
