"""Which recordings are measured: those of a manifest, or the two clips that come with the embedded model.

Clips are joined to recordings of any length, with pauses between them and their text beside them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from voiceforge.services.samples import sample_recordings
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.training.manifest import ManifestEntry, read_manifest

Samples = NDArray[np.float32]

_PAUSES_S = (0.4, 0.8, 1.5, 2.5)
"""Between joined clips, in turn: as between sentences, paragraphs and speakers."""

Shape = Literal["mixed", "thinning", "thickening"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
"""Of a recording whose speech is uneven: passages of each density in any order, or sorted by it."""

_DENSITIES_S = ((0.2, 0.6), (0.4, 2.5), (0.4, 2.5), (3.0, 12.0), (15.0, 60.0))
"""The shortest and the longest pause of a passage: read aloud, a talk, a talk, slow questions, hardly
anybody."""
_PASSAGE_S = (60.0, 480.0)


@dataclass(frozen=True, slots=True)
class Clip:
    """text None: what is said is not known."""

    path: Path
    text: str | None


@dataclass(frozen=True, slots=True)
class Recording:
    """A file, how long it lasts, and what is said in it if that is known."""

    path: Path
    seconds: float
    text: str | None


def english_clips(speech: Path | None) -> list[ManifestEntry]:
    """The English clips of the manifest in `speech` whose text is known."""
    if speech is None:
        return []
    return [e for e in read_manifest(speech / "manifest.jsonl") if e.language == "en" and e.text]


def samples_of(path: Path, entry: ManifestEntry | None = None) -> Samples:
    """float32, shape (n_samples,), 16 kHz mono."""
    with open_audio(path, raw=entry.raw if entry else None) as stream:
        return np.concatenate([block[0] for block in stream.blocks()])


def reading_clips(speech: Path | None) -> list[Clip]:
    """Clips fit for joining to a long recording: one voice, clean, long enough to hold a sentence."""
    chosen = [
        Clip(e.audio, e.text)
        for e in english_clips(speech)
        if e.kind == "speech" and e.raw is None and (e.duration or 0.0) >= 4.0
    ]
    if chosen:
        return chosen
    return [Clip(path, None) for path in reversed(sample_recordings())]


def joined(speech: Path | None, seconds: float) -> tuple[list[Samples], str | None]:
    """Clips and pauses of about `seconds` together, in order, and what is said."""
    parts: list[Samples] = []
    texts: list[str | None] = []
    total = 0.0
    for clip, pause_s in zip(
        itertools.cycle(reading_clips(speech)), itertools.cycle(_PAUSES_S), strict=False
    ):
        samples = samples_of(clip.path)
        parts += [samples, pause(pause_s)]
        texts.append(clip.text)
        total += len(samples) / SAMPLE_RATE_HZ + pause_s
        if total >= seconds:
            break
    known = [text for text in texts if text is not None]
    return parts, " ".join(known) if len(known) == len(texts) else None


def pause(seconds: float) -> Samples:
    """Room tone at -70 dBFS rather than digital silence, which no microphone gives."""
    noise = np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE_HZ))
    return (noise * 3e-4).astype(np.float32)


def write_recording(folder: Path, speech: Path | None, seconds: float) -> Recording:
    """A 16 kHz mono WAV of about `seconds` in `folder`."""
    import soundfile

    parts, text = joined(speech, seconds)
    samples = np.concatenate(parts)
    path = folder / f"joined-{round(seconds)}s.wav"
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    return Recording(path, len(samples) / SAMPLE_RATE_HZ, text)


def write_long_recording(path: Path, speech: Path | None, seconds: float) -> float:
    """A FLAC of about `seconds`, written piece by piece; returns its length in seconds."""
    return _write(path, _endless(speech, itertools.cycle(_PAUSES_S)), seconds)


def write_uneven_recording(path: Path, speech: Path | None, seconds: float, shape: Shape) -> float:
    """Likewise, with passages of one to eight minutes in which much, little or hardly anything is said."""
    return _write(path, _endless(speech, _uneven_pauses(speech, seconds, shape)), seconds)


def _write(path: Path, parts: Iterator[Samples], seconds: float) -> float:
    import soundfile

    written = 0
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1, format="FLAC", subtype="PCM_16") as file:
        for part in parts:
            file.write(part)
            written += len(part)
            if written >= seconds * SAMPLE_RATE_HZ:
                return written / SAMPLE_RATE_HZ
    raise AssertionError("an endless series ended")


def _uneven_pauses(speech: Path | None, seconds: float, shape: Shape) -> Iterator[float]:
    chance = random.Random(3)
    clips = reading_clips(speech)
    clip_s = sum(len(samples_of(clip.path)) for clip in clips[:20]) / len(clips[:20]) / SAMPLE_RATE_HZ
    passages: list[tuple[float, list[float]]] = []
    planned_s = 0.0
    while planned_s < seconds:
        shortest_s, longest_s = chance.choice(_DENSITIES_S)
        length_s, passed_s, pauses_s = chance.uniform(*_PASSAGE_S), 0.0, []
        while passed_s < length_s:
            pauses_s.append(chance.uniform(shortest_s, longest_s))
            passed_s += clip_s + pauses_s[-1]
        passages.append((longest_s, pauses_s))
        planned_s += passed_s
    if shape != "mixed":
        passages.sort(key=lambda passage: passage[0], reverse=shape == "thickening")
    return itertools.cycle(itertools.chain.from_iterable(pauses_s for _, pauses_s in passages))


def _endless(speech: Path | None, pauses_s: Iterator[float]) -> Iterator[Samples]:
    clips = itertools.cycle(reading_clips(speech))
    for clip, pause_s in zip(clips, pauses_s, strict=False):
        yield samples_of(clip.path)
        yield pause(pause_s)
