"""English word times by forced alignment with pocketsphinx, whose wheel carries model and dictionary.

The text becomes a grammar with one path per way of saying it; silence may stand between any two
words, so no word stretches over a pause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.errors import DependencyMissing
from voiceforge.speech.alignment.english_numbers import Reading
from voiceforge.speech.alignment.english_readings import Spoken, spoken
from voiceforge.speech.alignment.lease_pool import LeasePool
from voiceforge.speech.alignment.sphinx_features import FRAMES_PER_S, SphinxFeatures
from voiceforge.speech.alignment.timeline import Span, place_words, proportional_words
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.transcript.types import Word

ALIGNED_LANGUAGES = frozenset({"en"})
"""ISO 639-1."""

_NARROW, _WIDE = 1e-48, 1e-200
"""Search beams: the library's own, equal for phones and words (its narrower word beam loses the path
in noise), and what is tried where that loses it all the same."""

_SCORED_EVERY = 2
"""Frames per evaluation of the acoustic model: saves 40 % of the time; the median edge stays where it
was, one in twenty moves by 30 ms or more."""

_STEP_FRAMES = 20
"""Frames per call into the library, which holds the GIL meanwhile: 2 to 4 ms."""

_CONTEXT_FRAMES = 3
"""Fed step by step, the library swallows this many frames at either end (its delta window)."""

_GRAMMAR = "said"

_LONGEST_S = 300.0
"""Far beyond any engine's window; longer audio would hold a decoder for seconds on end."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """One dictionary word as the search placed it; frames from first to last, both inside."""

    word: str
    first: int
    last: int


class PocketsphinxAligner:
    """An `Aligner` for English.

    A decoder takes 30 MB and 0.2 s to make, with the GIL held; the first is made by the first call.

    Args:
        max_decoders: alignments that may run at once; more callers wait.
    """

    def __init__(self, max_decoders: int = 2) -> None:
        self._decoders = LeasePool(_new_decoder, max_decoders)
        self._features = SphinxFeatures()

    @property
    def languages(self) -> frozenset[str]:
        return ALIGNED_LANGUAGES

    def preload(self) -> None:
        """Make one decoder now, so that the first caller need not wait for it."""
        with self._decoders.lease():
            pass

    def close(self) -> None:
        """Give back the memory of idle decoders; the aligner stays usable."""
        self._decoders.drop_idle()

    def align(self, samples: Waveform, text: str) -> tuple[Word, ...]:
        tokens = text.split()
        duration = samples.size / SAMPLE_RATE_HZ
        if not tokens:
            return ()
        spans = self._spans(samples, tokens) if duration <= _LONGEST_S else None
        if spans is None:
            return proportional_words(text, *_loud_stretch(samples))
        return place_words(tokens, spans, duration)

    def _spans(self, samples: Waveform, tokens: Sequence[str]) -> list[Span | None] | None:
        cepstra = self._features.cepstra(samples)
        try:
            with self._decoders.lease() as decoder:
                return _spans(decoder, cepstra, tokens)
        except RuntimeError:  # all the library ever raises; the lease has dropped the decoder
            return None


def _new_decoder() -> Any:
    try:
        from pocketsphinx import Decoder
    except ImportError as missing:
        raise DependencyMissing("word times need the package pocketsphinx") from missing
    decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False, pl_window=0, ds=_SCORED_EVERY)
    decoder.config["cmn"] = "none"  # not in the constructor: the model's own parameters overrule it there
    decoder.reinit_feat()
    return decoder


def _spans(decoder: Any, cepstra: NDArray[np.float32], tokens: Sequence[str]) -> list[Span | None] | None:
    """Where each token lies, None in its place if it cannot be said; None alone if nothing fits."""

    def known(word: str) -> bool:
        return decoder.lookup_word(word) is not None

    shouting = not any(c.islower() for token in tokens for c in token)
    said = [spoken(token, known, shouting=shouting) for token in tokens]
    readings = [one.readings for one in said if one.readings]
    if not readings or not len(cepstra):
        return None
    for beam in (_NARROW, _WIDE):
        heard = _search(decoder, cepstra, readings, beam)
        counts = split_by_reading([h.word for h in heard], readings)
        if counts is not None:
            return _span_per_token(said, heard, counts)
    return None


def _search(
    decoder: Any, cepstra: NDArray[np.float32], readings: Sequence[tuple[Reading, ...]], beam: float
) -> list[_Heard]:
    """The words of the best path with their frames, silence left out; empty if no path was found."""
    for name in ("beam", "pbeam", "wbeam"):
        decoder.config[name] = beam
    grammar = decoder.create_fsg(_GRAMMAR, 0, len(readings), list(_transitions(readings)))
    decoder.add_fsg(_GRAMMAR, grammar)
    decoder.activate_search(_GRAMMAR)
    fed = np.pad(cepstra, ((_CONTEXT_FRAMES, _CONTEXT_FRAMES), (0, 0)), mode="edge")
    decoder.start_utt()
    for first in range(0, len(fed), _STEP_FRAMES):
        decoder.process_cep(fed[first : first + _STEP_FRAMES].tobytes())
    decoder.end_utt()
    if decoder.hyp() is None:
        return []
    # "read(2)" is the second pronunciation of "read"; fillers are written <sil> or [NOISE]
    return [
        _Heard(s.word.partition("(")[0], s.start_frame, s.end_frame)
        for s in decoder.seg()
        if s.word[0] not in "<["
    ]


def _transitions(readings: Sequence[tuple[Reading, ...]]) -> Iterator[tuple[int, int, float, str]]:
    """State i is "i tokens are done"; the inner words of a reading get states beyond those."""
    spare = len(readings) + 1
    for token, alternatives in enumerate(readings):
        for reading in alternatives:
            inner = range(spare, spare + len(reading) - 1)
            spare += len(inner)
            likelihood = 1.0 / len(alternatives)
            for (here, there), word in zip(pairwise((token, *inner, token + 1)), reading, strict=True):
                yield here, there, likelihood if here == token else 1.0, word


def split_by_reading(words: Sequence[str], readings: Sequence[tuple[Reading, ...]]) -> list[int] | None:
    """How many of `words` each token took, in order; None where they are no path through `readings`."""
    ways: dict[int, list[int]] = {0: []}
    for alternatives in readings:
        ways = {
            at + len(reading): [*counts, len(reading)]
            for at, counts in ways.items()
            for reading in alternatives
            if tuple(words[at : at + len(reading)]) == reading
        }
    return ways.get(len(words))


def _span_per_token(
    said: Sequence[Spoken], heard: Sequence[_Heard], counts: Sequence[int]
) -> list[Span | None]:
    spans: list[Span | None] = []
    at, taken = 0, iter(counts)
    for one in said:
        if not one.readings:
            spans.append(None)
            continue
        count = next(taken)
        first, last = heard[at].first, heard[at + count - 1].last
        spans.append(Span(first / FRAMES_PER_S, (last + 1) / FRAMES_PER_S, sure=one.exact))
        at += count
    return spans


def _loud_stretch(samples: Waveform) -> tuple[float, float]:
    """From the first to the last 10 ms within 30 dB of the loud ones, in seconds; all if none stands out."""
    step = SAMPLE_RATE_HZ // FRAMES_PER_S
    duration = samples.size / SAMPLE_RATE_HZ
    n_frames = samples.size // step
    if n_frames == 0:
        return 0.0, duration
    frames = np.nan_to_num(samples[: n_frames * step]).astype(np.float64).reshape(n_frames, step)
    power = (frames**2).mean(axis=1)
    loud = np.flatnonzero(power >= np.percentile(power, 95) * 1e-3)
    return float(loud[0]) / FRAMES_PER_S, min(duration, float(loud[-1] + 1) / FRAMES_PER_S)
