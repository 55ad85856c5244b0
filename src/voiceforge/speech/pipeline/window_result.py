"""One window from hypothesis to timed segments: second chances, removals, word times.

Blocks on the engine where a window has to be decoded again; runs in the pipeline's thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import Hypothesis, HypothesisSegment
from voiceforge.speech.engines.tickets import Ticket
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.plan import Plan
from voiceforge.speech.pipeline.segments import Span, sentences, spread_words, with_confidences
from voiceforge.speech.pipeline.trust import MIN_GAP_S, Account, without_inventions
from voiceforge.speech.text.loops import strip_loops
from voiceforge.speech.text.punctuation import without_doubled_commas
from voiceforge.speech.transcript.types import Segment, Word
from voiceforge.speech.vad.regions import Region

_TRIM_SAMPLES = 2_400
"""How much closer a window is cut where the very same samples would only give the same answer."""

_FEWEST_WORDS_PER_S = 0.6
"""Slower than anybody speaks for long (about 2.5 words a second is usual): text was dropped."""
_SPARSE_FROM_S = 3.0


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text of a part of the window, with the regions it was heard in. Times in recording seconds."""

    start_sample: int
    samples: Waveform
    regions: tuple[Region, ...]
    hypothesis: Hypothesis

    @property
    def words(self) -> int:
        return sum(len(segment.text.split()) for segment in self.hypothesis.segments)


class WindowSettler:
    """Settles windows of one request in order; `account` collects coverage and removals."""

    def __init__(self, ticket: Ticket, plan: Plan, aligner: Aligner | None, account: Account) -> None:
        self._ticket = ticket
        self._plan = plan
        self._aligner = aligner
        self._account = account

    def settle(self, audio: WindowAudio, hypothesis: Hypothesis) -> list[Segment]:
        """Final segments of the window, ids all 0, in time order."""
        whole = _Piece(audio.window.start, audio.samples, audio.window.regions, hypothesis)
        pieces = self._second_chance(whole)
        segments: list[Segment] = []
        for piece in pieces:
            segments += self._settle_piece(piece, audio.channel, is_first_try=piece is whole)
        return segments

    def _second_chance(self, piece: _Piece) -> list[_Piece]:
        """The piece, or the pieces of it decoded apart where the first decode cannot be right: it went
        round in a loop, or has no or hardly any words for the speech there is."""
        speech_s = sum(region.samples for region in piece.regions) / SAMPLE_RATE_HZ
        looped = self._loops(piece)
        silent = piece.words == 0 and any(r.samples >= MIN_GAP_S * SAMPLE_RATE_HZ for r in piece.regions)
        sparse = speech_s >= _SPARSE_FROM_S and piece.words < _FEWEST_WORDS_PER_S * speech_s
        if not (looped or silent or sparse):
            return [piece]
        parts = self._decode_apart(piece)
        better = (
            not any(self._loops(part) for part in parts)
            if looped
            else sum(part.words for part in parts) > piece.words
        )
        return parts if better else [piece]

    def _loops(self, piece: _Piece) -> bool:
        seconds = len(piece.samples) / SAMPLE_RATE_HZ
        return any(strip_loops(s.text, seconds).removed for s in piece.hypothesis.segments)

    def _decode_apart(self, piece: _Piece) -> list[_Piece]:
        """Each region by itself, a long single one in two halves, a short one in another framing."""
        regions = piece.regions
        if len(regions) == 1 and regions[0].samples >= 4 * SAMPLE_RATE_HZ:
            only = regions[0]
            middle = (only.start + only.end) // 2
            regions = (replace(only, end=middle), replace(only, start=middle))
        return self._decode_regions(replace(piece, regions=regions), regions)

    def _decode_regions(self, piece: _Piece, wanted: Sequence[Region]) -> list[_Piece]:
        """Those of the piece's regions that are wanted, each with half of the air around it."""
        edges = [(a.end + b.start) // 2 for a, b in itertools.pairwise(piece.regions)]
        bounds = [0, *(edge - piece.start_sample for edge in edges), len(piece.samples)]
        parts = []
        for region, first, last in zip(piece.regions, bounds, bounds[1:], strict=False):
            if region not in wanted:
                continue
            # The very same samples would only give the very same answer.
            trim = _trim(piece.samples) if last - first == len(piece.samples) else 0
            samples = piece.samples[first + trim : last - trim]
            future = self._ticket.submit(samples, self._plan.decode)
            parts.append((piece.start_sample + first + trim, samples, (region,), future))
        return [_Piece(first, samples, own, future.result()) for first, samples, own, future in parts]

    def _settle_piece(self, piece: _Piece, channel: int, *, is_first_try: bool) -> list[Segment]:
        segments, removed = self._heard(piece, channel)
        without_text = [region for region in piece.regions if not _has_text(region, segments)]
        if is_first_try and segments and not removed:
            segments, without_text = self._recover(piece, segments, without_text, channel)
        for region in piece.regions:
            start, end = region.start / SAMPLE_RATE_HZ, region.end / SAMPLE_RATE_HZ
            self._account.spoken(start, end, with_text=region not in without_text, removed=removed)
        return segments

    def _recover(
        self, piece: _Piece, segments: list[Segment], without_text: list[Region], channel: int
    ) -> tuple[list[Segment], list[Region]]:
        """Decode by themselves the regions that the text of the window passes over.

        Returns:
            All segments in time order, and the regions that still have no text. Where a region's words
            are in the text already, only their times were off: it lacks nothing.
        """
        missed = [region for region in without_text if region.samples >= MIN_GAP_S * SAMPLE_RATE_HZ]
        left = [region for region in without_text if region not in missed]
        said = {key for segment in segments for key in _word_keys(segment.text)}
        found: list[Segment] = []
        for part in self._decode_regions(piece, missed) if missed else []:
            (region,) = part.regions
            heard, _ = self._heard(part, channel)
            keys = [key for segment in heard for key in _word_keys(segment.text)]
            if not keys:
                left.append(region)
            elif 2 * sum(key in said for key in keys) < len(keys):
                found += [_inside(segment, region) for segment in heard]
        return sorted(segments + found, key=lambda segment: segment.start), left

    def _heard(self, piece: _Piece, channel: int) -> tuple[list[Segment], bool]:
        """The segments of a piece, and whether text was taken out of it."""
        segments: list[Segment] = []
        removed = False
        for heard in map(_with_mended_commas, piece.hypothesis.segments):
            kept, removals = without_inventions(heard, piece.regions, piece.start_sample, len(piece.samples))
            self._account.removed += removals
            removed = removed or kept.text != heard.text
            if kept.text:
                segments += self._timed(piece, kept, channel)
        return segments, removed

    def _timed(self, piece: _Piece, heard: HypothesisSegment, channel: int) -> list[Segment]:
        """Segments of one recognised stretch: the engine's own where it gives times, else cut at
        sentence ends by the times of the words."""
        offset = piece.start_sample / SAMPLE_RATE_HZ
        seconds = len(piece.samples) / SAMPLE_RATE_HZ
        template = Segment(
            id=0,
            start=offset + heard.start,
            end=offset + min(heard.end, seconds),
            text=heard.text,
            avg_logprob=heard.avg_logprob,
            no_speech_prob=heard.no_speech_prob,
            channel=channel,
            tokens=heard.tokens,
            temperature=heard.temperature,
            compression_ratio=heard.compression_ratio,
        )
        words = self._word_times(piece, heard)
        if self._ticket.capabilities.segment_times:
            return [replace(template, words=words if self._plan.word_times != "none" else ())]
        groups = sentences(words)
        return [
            replace(
                template,
                start=group[0].start,
                end=max(group[-1].end, group[0].start),
                text=" ".join(word.text for word in group),
                words=group if self._plan.word_times != "none" else (),
                tokens=heard.tokens if len(groups) == 1 else (),
            )
            for group in groups
        ]

    def _word_times(self, piece: _Piece, heard: HypothesisSegment) -> tuple[Word, ...]:
        """Words with their times in the recording, from the stage that is to supply them."""
        offset = piece.start_sample / SAMPLE_RATE_HZ
        if heard.words:
            return tuple(replace(w, start=w.start + offset, end=w.end + offset) for w in heard.words)
        first, last = 0, len(piece.samples)
        if self._ticket.capabilities.segment_times:
            first, last = int(heard.start * SAMPLE_RATE_HZ), min(last, int(heard.end * SAMPLE_RATE_HZ))
        if self._plan.word_times == "aligner" and self._aligner is not None:
            moved = offset + first / SAMPLE_RATE_HZ
            aligned = self._aligner.align(piece.samples[first:last], heard.text)
            words = [replace(w, start=w.start + moved, end=w.end + moved) for w in aligned]
            return with_confidences(words, heard.word_confidences)
        spans = _speech(piece, piece.start_sample + first, piece.start_sample + last)
        return spread_words(heard.text, spans, heard.word_confidences)


def _with_mended_commas(heard: HypothesisSegment) -> HypothesisSegment:
    words = tuple(replace(word, text=without_doubled_commas(word.text)) for word in heard.words)
    return replace(heard, text=without_doubled_commas(heard.text), words=words)


def _speech(piece: _Piece, first: int, last: int) -> Sequence[Span]:
    """Where speech is between two samples of the recording, in its seconds; all of it where the VAD saw
    none."""
    spans = [
        Span(max(r.start, first) / SAMPLE_RATE_HZ, min(r.end, last) / SAMPLE_RATE_HZ)
        for r in piece.regions
        if r.start < last and r.end > first
    ]
    return spans or [Span(first / SAMPLE_RATE_HZ, last / SAMPLE_RATE_HZ)]


def _has_text(region: Region, segments: Sequence[Segment]) -> bool:
    start, end = region.start / SAMPLE_RATE_HZ, region.end / SAMPLE_RATE_HZ
    return any(segment.start < end and segment.end > start for segment in segments)


def _inside(segment: Segment, region: Region) -> Segment:
    """The segment within the region, so that it cannot overlap those around it."""
    low, high = region.start / SAMPLE_RATE_HZ, region.end / SAMPLE_RATE_HZ

    def fit(time: float) -> float:
        return min(max(time, low), high)

    words = tuple(replace(word, start=fit(word.start), end=fit(word.end)) for word in segment.words)
    return replace(segment, start=fit(segment.start), end=fit(segment.end), words=words)


def _word_keys(text: str) -> list[str]:
    keys = ("".join(filter(str.isalnum, word)).casefold() for word in text.split())
    return [key for key in keys if key]


def _trim(samples: Waveform) -> int:
    """How much to take off either side of a window to hear it in another framing."""
    return _TRIM_SAMPLES if len(samples) > 4 * _TRIM_SAMPLES else 0
