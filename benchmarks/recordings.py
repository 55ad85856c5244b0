"""Which recordings are measured: those of a manifest, or the two clips that come with the embedded model.

Clips are joined to recordings of any length, with pauses between them and their text beside them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voiceforge.services.samples import sample_recordings
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.training.manifest import ManifestEntry, read_manifest

Samples = NDArray[np.float32]

_PAUSES_S = (0.4, 0.8, 1.5, 2.5)
"""Between joined clips, in turn: as between sentences, paragraphs and speakers."""


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
    import soundfile

    written = 0
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1, format="FLAC", subtype="PCM_16") as file:
        for part in _endless(speech):
            file.write(part)
            written += len(part)
            if written >= seconds * SAMPLE_RATE_HZ:
                return written / SAMPLE_RATE_HZ
    raise AssertionError("an endless series ended")


def _endless(speech: Path | None) -> Iterator[Samples]:
    clips = itertools.cycle(reading_clips(speech))
    for clip, pause_s in zip(clips, itertools.cycle(_PAUSES_S), strict=False):
        yield samples_of(clip.path)
        yield pause(pause_s)
