"""What is said in a stream that is measured: recordings joined with pauses, and when each word of their
texts begins and ends. The times come from the aligner and the reference text, not from what is recognised."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from processes import environment, run, voiceforge
from recordings import Samples, english_clips, pause, samples_of

from voiceforge.services.samples import sample_recordings
from voiceforge.speech.alignment.english_pocketsphinx import PocketsphinxAligner
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ

_PAUSES_S = (1.2, 0.7, 2.0, 1.0)
"""Between two recordings: as between turns of a conversation."""
_LONGEST_CLIP_S = 20.0


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """In seconds from the start of its script."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Script:
    """samples: int16, 16 kHz mono. words: in order; none where the text is not known. text: of it all."""

    samples: NDArray[np.int16]
    words: tuple[SpokenWord, ...]
    text: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class _Spoken:
    samples: Samples
    words: tuple[SpokenWord, ...]
    text: str


def scripts(speech: Path | None, count: int, seconds: float) -> list[Script]:
    """Each of about `seconds`, each with other recordings first."""
    spoken = _spoken(speech)
    return [_joined(spoken, first * len(spoken) // count, seconds) for first in range(count)]


def silent_script(seconds: float) -> Script:
    return Script(_pcm(pause(seconds)), (), "")


def _spoken(speech: Path | None) -> list[_Spoken]:
    """Clear speech of one voice whose text is known; without a manifest, the clips of the wheel, whose texts
    are the ones that were recognised in them beforehand."""
    aligner = PocketsphinxAligner(max_decoders=1)
    known = [
        (samples_of(entry.audio), str(entry.text))
        for entry in english_clips(speech)
        if entry.kind == "speech" and entry.raw is None and 3.0 <= (entry.duration or 0.0) <= _LONGEST_CLIP_S
    ]
    if not known:
        known = [(samples_of(path), _recognised(path)) for path in sample_recordings()]
    found = []
    for samples, text in known:
        words = [w for w in aligner.align(samples, text) if not w.estimated]
        if words:
            spoken = tuple(SpokenWord(word.start, word.end, word.text) for word in words)
            found.append(_Spoken(samples, spoken, text))
    return found


def _recognised(path: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        cost = run([*voiceforge(), "transcribe", str(path)], environment(Path(folder)))
    return " ".join(cost.output.split())


def _joined(spoken: Sequence[_Spoken], first: int, seconds: float) -> Script:
    parts: list[Samples] = [pause(1.0)]
    words: list[SpokenWord] = []
    texts: list[str] = []
    at_s = 1.0
    number = first
    while at_s < seconds:
        one = spoken[number % len(spoken)]
        words += [SpokenWord(w.start + at_s, w.end + at_s, w.text) for w in one.words]
        texts.append(one.text)
        after_s = _PAUSES_S[number % len(_PAUSES_S)]
        parts += [one.samples, pause(after_s)]
        at_s += len(one.samples) / SAMPLE_RATE_HZ + after_s
        number += 1
    return Script(_pcm(np.concatenate(parts)), tuple(words), " ".join(texts))


def _pcm(samples: Samples) -> NDArray[np.int16]:
    return (np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
