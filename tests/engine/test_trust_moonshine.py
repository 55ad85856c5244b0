"""What peers are known for, on the embedded engine: no words where nothing is said, none lost where
something is."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from voiceforge.infra.modelstore.wheel import find_in_wheel
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.alignment.english_pocketsphinx import PocketsphinxAligner
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.catalog import find_entry
from voiceforge.speech.engines.moonshine_ort import MoonshineOrt
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.batch import transcribe
from voiceforge.speech.pipeline.listen import LocalListener, listen_options
from voiceforge.speech.text.loops import strip_loops
from voiceforge.speech.transcript.events import Finished
from voiceforge.speech.transcript.types import ModelRef, Transcript

SECONDS = 15
Transcribe = Callable[..., Transcript]


@pytest.fixture(scope="module")
def run() -> Iterator[Transcribe]:
    entry = find_entry("moonshine-tiny-en")
    assert entry
    found = find_in_wheel(entry)
    assert found
    batcher = Batcher(MoonshineOrt(found.files.path, ModelRef(entry.id, "test"), parallel_decodes=1))
    listener, aligner = LocalListener(), PocketsphinxAligner(max_decoders=1)

    @cache  # several tests look at the same transcripts
    def run(source: Path | bytes, *, words: bool = True) -> Transcript:
        ticket = batcher.open()
        options = TranscribeOptions(words=words)
        try:
            with closing(listener.open(source, listen_options(options, ticket.capabilities))) as recording:
                *_, last = transcribe(recording.events(), ticket, aligner, options)
        finally:
            ticket.close()
        assert isinstance(last, Finished)
        return last.transcript

    yield run
    batcher.close(grace_s=0)


def wav(samples: NDArray[np.float64] | Waveform) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.clip(samples, -1, 1), SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return out.getvalue()


# -- made by the test: nothing is said in any of it


def time_axis() -> NDArray[np.float64]:
    return np.arange(SECONDS * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ


def white(level: float) -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(0, level, SECONDS * SAMPLE_RATE_HZ)


def pink(level: float) -> NDArray[np.float64]:
    """Power falls with frequency, as in a room, a car or the wind."""
    spectrum = np.fft.rfft(white(1.0))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    noise = np.fft.irfft(spectrum)
    return noise / noise.std() * level


def hum(level: float) -> NDArray[np.float64]:
    """The mains, with its odd harmonics."""
    return level * sum(np.sin(2 * np.pi * 50 * k * time_axis()) / k for k in (1, 3, 5, 7))


def dial_tones() -> NDArray[np.float64]:
    """A telephone number: two tones a key, 120 ms each, 80 ms between them."""
    rows, columns = (697, 770, 852, 941), (1209, 1336, 1477)
    keys = itertools.cycle(itertools.product(rows, columns))
    t = np.arange(int(0.12 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    gap = np.zeros(int(0.08 * SAMPLE_RATE_HZ))
    presses = [
        np.concatenate([0.3 * (np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t)), gap])
        for low, high in itertools.islice(keys, SECONDS * 5)
    ]
    return np.concatenate(presses)


def chords(*, vibrato: bool = False, beat: bool = False) -> NDArray[np.float64]:
    """Four chords of a song, each note with overtones and a decay; perhaps with vibrato and a drum."""
    rng = np.random.default_rng(2)
    t = np.arange(SAMPLE_RATE_HZ // 2) / SAMPLE_RATE_HZ
    wobble = 0.004 * np.sin(2 * np.pi * 5.5 * t) if vibrato else 0.0
    bars = []
    roots = itertools.cycle([(60, 64, 67), (57, 60, 64), (65, 69, 72), (55, 59, 62)])
    for chord in itertools.islice(roots, SECONDS * 2):
        notes = np.zeros(len(t))
        for midi in chord:
            hz = 440 * 2 ** ((midi - 69) / 12)
            for overtone in range(1, 6):
                notes += np.sin(2 * np.pi * hz * overtone * (t + wobble)) / overtone**1.5
        bar = 0.12 * notes * np.exp(-2 * t)
        if beat:
            bar += 0.5 * rng.normal(0, 1, len(t)) * np.exp(-60 * t)
        bars.append(bar)
    return np.concatenate(bars)


def knocks() -> NDArray[np.float64]:
    """Somebody hits a table, now and then."""
    rng = np.random.default_rng(3)
    out = white(0.001)
    for at in rng.integers(0, len(out) - 2000, 20):
        out[at : at + 1600] += 0.8 * rng.normal(0, 1, 1600) * np.exp(-np.arange(1600) / 150)
    return out


NOTHING_SAID = {
    "digital silence": lambda: np.zeros(SECONDS * SAMPLE_RATE_HZ),
    "one bit of noise": lambda: white(1 / 32768),
    "faint white noise": lambda: white(0.003),
    "white noise": lambda: white(0.05),
    "loud white noise": lambda: white(0.3),
    "faint pink noise": lambda: pink(0.003),
    "pink noise": lambda: pink(0.05),
    "loud pink noise": lambda: pink(0.25),
    "hum": lambda: hum(0.2),
    "hum and hiss": lambda: hum(0.05) + white(0.01),
    "dial tones": dial_tones,
    "chords": chords,
    "strings": lambda: chords(vibrato=True),
    "a band": lambda: chords(vibrato=True, beat=True),
    "knocks": knocks,
}


@pytest.mark.parametrize("name", NOTHING_SAID)
def test_where_nothing_is_said_there_are_no_words_and_a_warning(run: Transcribe, name: str) -> None:
    transcript = run(wav(NOTHING_SAID[name]()))
    assert transcript.text == ""
    assert transcript.segments == ()
    assert transcript.words == ()
    codes = {warning.code for warning in transcript.warnings}
    assert "no_speech" in codes
    assert ("silence" in codes) == (name in ("digital silence", "one bit of noise"))
    assert transcript.coverage.transcribed_s == 0.0


@pytest.mark.parametrize("name", ["white noise", "a band", "hum and hiss"])
def test_words_before_and_after_nothing_are_the_only_ones(run: Transcribe, name: str) -> None:
    with open_audio(sample_recordings()[0]) as stream:
        speech = np.concatenate([block[0] for block in stream.blocks()])
    alone = run(wav(speech))
    around = run(wav(np.concatenate([speech, 0.3 * NOTHING_SAID[name](), speech])))
    words = len(alone.words)
    assert 2 * words - 4 <= len(around.words) <= 2 * words + 4
    quiet = (alone.duration + 1, alone.duration + SECONDS - 1)
    assert not [w for w in around.words if w.end > quiet[0] and w.start < quiet[1]]


# -- known texts

BECKETT = "ever tried ever failed no matter try again fail again fail better"
DICKENS = (
    "it was the best of times it was the worst of times it was the age of wisdom it was the age of "
    "foolishness it was the epoch of belief it was the epoch of incredulity it was the season of light "
    "it was the season of darkness it was the spring of hope it was the winter of despair we had "
    "everything before us we had nothing before us we were all going direct to heaven we were all going "
    "direct the other way in short the period was so far like the present period that some of its "
    "noisiest authorities insisted on its being received for good or for evil in the superlative degree "
    "of comparison only"
)


def word_error_rate(reference: str, text: str) -> float:
    said, heard = reference.split(), "".join(c if c.isalnum() else " " for c in text.casefold()).split()
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1] / len(said)


@pytest.mark.parametrize("words", [True, False], ids=["words", "plain"])
@pytest.mark.parametrize(("clip", "text"), [(0, BECKETT), (1, DICKENS)], ids=["beckett", "dickens"])
def test_speech_is_recognised_whole_and_once(run: Transcribe, clip: int, text: str, words: bool) -> None:
    transcript = run(sample_recordings()[clip], words=words)
    assert word_error_rate(text, transcript.text) <= 0.10
    assert strip_loops(transcript.text, transcript.duration).removed == ()
    assert (transcript.removed, transcript.warnings) == ((), ())
    coverage = transcript.coverage
    assert coverage.gaps == ()
    assert coverage.transcribed_s == pytest.approx(coverage.speech_s)
    assert 0.4 * transcript.duration < coverage.speech_s < transcript.duration


@pytest.mark.parametrize("clip", [0, 1], ids=["beckett", "dickens"])
def test_every_word_has_a_time_in_order_inside_the_recording(run: Transcribe, clip: int) -> None:
    transcript = run(sample_recordings()[clip], words=True)
    assert " ".join(word.text for word in transcript.words) == transcript.text
    for word in transcript.words:
        assert 0.0 <= word.start < word.end <= transcript.duration
        assert word.confidence is not None
        assert 0.0 <= word.confidence <= 1.0
    for before, after in itertools.pairwise(transcript.words):
        assert before.end <= after.start
    assert sum(word.estimated for word in transcript.words) < 0.2 * len(transcript.words)


def test_asking_for_word_times_does_not_change_the_text(run: Transcribe) -> None:
    for clip in sample_recordings():
        assert run(clip, words=True).text == run(clip, words=False).text
