"""Timeline arithmetic: where in time each character of a segment's text lies.

A segment's text is what counts; its words are the anchors. Between anchors time runs evenly over the
characters, so text that has no word times, or that a later stage rewrote, still gets a place.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from voiceforge.speech.transcript.types import Segment, Word

# A word of the list further ahead than this in the text is taken to be missing from the text.
_SEARCH_AHEAD_CHARS = 40


@dataclass(frozen=True, slots=True)
class TimedText:
    """One segment's text on the timeline.

    offsets, times: anchors, both non-decreasing; times in seconds.
    speakers: (offset, speaker) from which character on who speaks, by offset; never empty.
    """

    text: str
    offsets: tuple[int, ...]
    times: tuple[float, ...]
    speakers: tuple[tuple[int, str | None], ...]

    def time_from(self, offset: int) -> float:
        """When the character at `offset` begins."""
        # The last anchor at an offset: a pause between two words belongs before the second.
        after = bisect_right(self.offsets, offset)
        return self._between(after - 1, after, offset)

    def time_until(self, offset: int) -> float:
        """When the character before `offset` ends."""
        before = bisect_right(self.offsets, offset - 1)
        return self._between(before - 1, before, offset)

    def speaker_at(self, offset: int) -> str | None:
        """Who says the character at `offset`."""
        index = bisect_right(self.speakers, offset, key=lambda entry: entry[0])
        return self.speakers[max(index - 1, 0)][1]

    def _between(self, low: int, high: int, offset: int) -> float:
        if low < 0:
            return self.times[0]
        if high >= len(self.offsets):
            return self.times[-1]
        span = self.offsets[high] - self.offsets[low]
        share = (offset - self.offsets[low]) / span if span else 0.0
        return self.times[low] + share * (self.times[high] - self.times[low])


def timed_text(segment: Segment) -> TimedText:
    """Lay the segment's text on the timeline; its words' texts stand in where it has none itself."""
    text = segment.text if segment.text.strip() else " ".join(word.text for word in segment.words)
    placed = _placed(text, segment.words)
    anchors: list[tuple[int, float]] = []
    speakers: list[tuple[int, str | None]] = [(0, segment.speaker)]
    for begin, end, word in placed:
        anchors += [(begin, word.start), (end, word.end)]
        speaker = word.speaker if word.speaker is not None else segment.speaker
        if speaker != speakers[-1][1]:
            speakers.append((begin, speaker))
    # The segment's own times are needed only where spoken text reaches beyond its timed words.
    if not placed or _spoken(text[: placed[0][0]]):
        anchors.insert(0, (0, segment.start))
    if not placed or _spoken(text[placed[-1][1] :]):
        anchors.append((len(text), segment.end))
    times = tuple(accumulate((time for _, time in anchors), max))
    return TimedText(text, tuple(offset for offset, _ in anchors), times, tuple(speakers))


def _spoken(text: str) -> bool:
    return any(char.isalnum() for char in text)


def _placed(text: str, words: tuple[Word, ...]) -> list[tuple[int, int, Word]]:
    """(begin, end, word) in order, quotes and commas around a word included; words that are not found
    in the text are left out."""
    found: list[tuple[int, int, Word]] = []
    cursor = 0
    for word in words:
        wanted = word.text.strip()
        begin = text.find(wanted, cursor, cursor + len(wanted) + _SEARCH_AHEAD_CHARS) if wanted else -1
        if begin < 0:
            continue
        inside_another = begin > cursor and text[begin - 1].isalnum() and wanted[0].isalnum()
        if inside_another and _spoken(text[cursor:begin]):
            continue
        cursor = begin + len(wanted)
        found.append((begin, cursor, word))
    placed: list[tuple[int, int, Word]] = []
    for index, (begin, end, word) in enumerate(found):
        previous_end = placed[-1][1] if placed else 0
        next_begin = found[index + 1][0] if index + 1 < len(found) else len(text)
        while end < next_begin and _attached(text[end]):
            end += 1
        while begin > previous_end and _attached(text[begin - 1]):
            begin -= 1
        placed.append((begin, end, word))
    return placed


def _attached(char: str) -> bool:
    return not char.isspace() and not char.isalnum()
