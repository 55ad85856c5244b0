"""What the engine heard of an utterance that is over → the segments of its final."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.engines.base import Hypothesis
from voiceforge.speech.engines.tickets import Ticket
from voiceforge.speech.pipeline.recogniser import DecodeWanted, SettledWindow
from voiceforge.speech.pipeline.segments import Span, spread_words
from voiceforge.speech.pipeline.stream_agreement import taken_up
from voiceforge.speech.pipeline.trust import Account
from voiceforge.speech.pipeline.window_result import WindowSettler
from voiceforge.speech.transcript.types import Segment, Word


def settle_wish(
    wanted: DecodeWanted, hypothesis: Hypothesis, ticket: Ticket, aligner: Aligner | None
) -> SettledWindow:
    """What the engine heard in a speculative or final wish → the answer to it. Blocks: speech without text
    is decoded again on `ticket`, and words are aligned.

    Raises: what the futures of the ticket raise.
    """
    account = Account()
    segments = WindowSettler(ticket, wanted.plan, aligner, account).settle(wanted.audio, hypothesis)
    return SettledWindow(tuple(segments), hypothesis.language, account)


def keeping(stable: Sequence[str], segments: Sequence[Segment], speech: Span) -> tuple[Segment, ...]:
    """The segments of a final, beginning with the words that were called stable.

    Where the final heard them otherwise, the stable words stand in the place of those that say the same; the
    rest of it is as it was heard.

    Args:
        speech: where the utterance lies, for words that the final has no place for.
    """
    words = [(number, word) for number, segment in enumerate(segments) for word in _words(segment)]
    texts = [word.text for _, word in words]
    if texts[: len(stable)] == list(stable):
        return tuple(segments)
    same = 0
    while same < min(len(stable), len(texts)) and stable[same] == texts[same]:
        same += 1
    until = taken_up(stable, texts)
    same = min(same, until)
    heard = [word for _, word in words[same:until]]
    if heard:
        place = Span(heard[0].start, heard[-1].end)
    else:
        at = words[same - 1][1].end if same else min(speech.start, words[0][1].start if words else speech.end)
        place = Span(at, words[until][1].start if until < len(words) else max(at, speech.end))
    kept = spread_words(" ".join(stable[same:]), [place])
    if len(kept) == len(heard):
        kept = tuple(replace(k, start=h.start, end=h.end) for k, h in zip(kept, heard, strict=True))
    owner = words[min(same, len(words) - 1)][0] if words else 0
    whole = [*words[:same], *((owner, word) for word in kept), *words[until:]]
    known = segments or (Segment(0, speech.start, speech.end, ""),)
    rebuilt = [
        _rebuilt(segment, [word for owned_by, word in whole if owned_by == number])
        for number, segment in enumerate(known)
    ]
    return tuple(segment for segment in rebuilt if segment.text)


def _words(segment: Segment) -> Sequence[Word]:
    if [word.text for word in segment.words] == segment.text.split():
        return segment.words
    return spread_words(segment.text, [Span(segment.start, segment.end)])


def _rebuilt(segment: Segment, words: Sequence[Word]) -> Segment:
    text = " ".join(word.text for word in words)
    if text == segment.text or not words:
        return replace(segment, text=text)
    return replace(segment, start=words[0].start, end=words[-1].end, text=text, words=tuple(words), tokens=())


def behind(earlier_end: float, segments: Sequence[Segment], *, words: bool) -> tuple[Segment, ...]:
    """The segments with every time at or after `earlier_end`; words: whether they are to have any."""

    def fit(time: float) -> float:
        return max(time, earlier_end)

    return tuple(
        replace(
            segment,
            start=fit(segment.start),
            end=fit(segment.end),
            words=tuple(replace(w, start=fit(w.start), end=fit(w.end)) for w in segment.words)
            if words
            else (),
        )
        for segment in segments
    )
