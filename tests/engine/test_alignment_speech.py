"""The English aligner on real speech: the clips in the moonshine_voice wheel, and more where at hand."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voiceforge.speech.alignment.english_pocketsphinx import PocketsphinxAligner
from voiceforge.speech.alignment.sphinx_features import SphinxFeatures
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.transcript.types import Word

BECKETT = "Ever tried, ever failed. No matter. Try again, fail again, fail better."


def bundled(name: str) -> Waveform:
    found = importlib.util.find_spec("moonshine_voice")
    assert found is not None
    assert found.origin is not None
    return load(Path(found.origin).parent / "assets" / name)


def load(path: Path) -> Waveform:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return mono if rate == SAMPLE_RATE_HZ else soxr.resample(mono, rate, SAMPLE_RATE_HZ)


def assert_sound(words: tuple[Word, ...], text: str, samples: Waveform) -> None:
    assert [w.text for w in words] == text.split()
    assert all(0.0 <= w.start <= w.end <= samples.size / SAMPLE_RATE_HZ for w in words)
    assert all(a.end <= b.start for a, b in pairwise(words))


@pytest.fixture(scope="module")
def aligner() -> PocketsphinxAligner:
    return PocketsphinxAligner(max_decoders=2)


@pytest.fixture(scope="module")
def beckett() -> Waveform:
    return bundled("beckett.wav")


def test_words_stand_where_they_are_said_and_pauses_are_left_free(
    aligner: PocketsphinxAligner, beckett: Waveform
) -> None:
    words = aligner.align(beckett, BECKETT)

    assert_sound(words, BECKETT, beckett)
    assert not any(w.estimated for w in words)
    # the five phrases as the sound's own level shows them, to 0.15 s
    phrases = [
        (0, 1, 0.3, 1.15),
        (2, 3, 1.8, 2.75),
        (4, 5, 3.5, 4.05),
        (6, 7, 4.85, 5.5),
        (10, 11, 8.05, 8.75),
    ]
    for first, last, start, end in phrases:
        assert words[first].start == pytest.approx(start, abs=0.15)
        assert words[last].end == pytest.approx(end, abs=0.15)


def test_it_agrees_with_the_library_given_the_sound_in_one_piece(
    aligner: PocketsphinxAligner, beckett: Waveform
) -> None:
    from pocketsphinx import Decoder

    plain = "ever tried ever failed no matter try again fail again fail better"
    decoder = Decoder(lm=None, loglevel="FATAL")
    decoder.set_align_text(plain)
    decoder.start_utt()
    decoder.process_raw((beckett * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    theirs = [(s.start_frame / 100, (s.end_frame + 1) / 100) for s in decoder.seg() if s.word[0] != "<"]

    ours = [(w.start, w.end) for w in aligner.align(beckett, plain)]

    assert len(ours) == len(theirs)
    # its noise removal lets words run into the pauses beside them; where words touch, it is the same
    differences = np.abs(np.subtract(ours, theirs))
    assert differences.max() <= 0.15
    assert np.median(differences) <= 0.01


def test_times_are_those_of_the_given_samples(aligner: PocketsphinxAligner, beckett: Waveform) -> None:
    late = np.concatenate([np.zeros(2 * SAMPLE_RATE_HZ, np.float32), beckett])

    shifted = aligner.align(late, BECKETT)

    for before, after in zip(aligner.align(beckett, BECKETT), shifted, strict=True):
        assert after.start - 2.0 == pytest.approx(before.start, abs=0.05)


def test_loudness_does_not_matter(aligner: PocketsphinxAligner, beckett: Waveform) -> None:
    quiet = aligner.align(beckett * np.float32(0.003), BECKETT)

    for loud, soft in zip(aligner.align(beckett, BECKETT), quiet, strict=True):
        assert soft.start == pytest.approx(loud.start, abs=0.05)


def test_an_alignment_leaves_nothing_behind_for_the_next(
    aligner: PocketsphinxAligner, beckett: Waveform
) -> None:
    alone = PocketsphinxAligner(max_decoders=1).align(beckett, BECKETT)

    aligner.align(beckett[::-1].copy(), "something else altogether 1917 😀")

    assert aligner.align(beckett, BECKETT) == alone


def test_marks_and_words_outside_the_dictionary_are_estimated_between_their_neighbours(
    aligner: PocketsphinxAligner, beckett: Waveform
) -> None:
    text = BECKETT.replace("matter.", "mattterh — 😀")

    words = aligner.align(beckett, text)

    assert_sound(words, text, beckett)
    assert [w.text for w in words if w.estimated] == ["mattterh", "—", "😀"]
    guessed = next(w for w in words if w.text == "mattterh")
    assert guessed.start == pytest.approx(3.7, abs=0.1)


@pytest.mark.parametrize(
    "token", ["1917", "$5.50", "3:30", "2nd", "U.S.", "Mr.", "Dr.", "VoiceForge", "O'Brien's", "24/7", "☃"]
)
def test_every_written_token_stays_one_word(
    aligner: PocketsphinxAligner, beckett: Waveform, token: str
) -> None:
    text = f"Ever tried, {token} ever failed."

    assert_sound(aligner.align(beckett[: 3 * SAMPLE_RATE_HZ], text), text, beckett)


def test_text_that_cannot_fit_is_spread_over_the_loud_part(
    aligner: PocketsphinxAligner, beckett: Waveform
) -> None:
    padded = np.concatenate([np.zeros(SAMPLE_RATE_HZ, np.float32), beckett[4800:8000]])
    text = "far more words than anybody could ever say within a fifth of a second"

    words = aligner.align(padded, text)

    assert_sound(words, text, padded)
    assert all(w.estimated for w in words)
    assert words[0].start >= 0.99


@pytest.mark.parametrize("n_samples", [0, 1, 300, 1600])
def test_next_to_no_audio_still_gives_every_word_a_time(aligner: PocketsphinxAligner, n_samples: int) -> None:
    silence = np.zeros(n_samples, np.float32)

    assert_sound(aligner.align(silence, "one two"), "one two", silence)


def test_no_text_has_no_words(aligner: PocketsphinxAligner, beckett: Waveform) -> None:
    assert aligner.align(beckett, " \n") == ()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60) | st.text("0123456789$.:,%-' aeISt", max_size=60))
def test_any_text_gets_sound_times(aligner: PocketsphinxAligner, beckett: Waveform, text: str) -> None:
    piece = beckett[: 5 * SAMPLE_RATE_HZ // 2]

    assert_sound(aligner.align(piece, text), text, piece)


def test_many_threads_get_what_one_gets(aligner: PocketsphinxAligner, beckett: Waveform) -> None:
    expected = aligner.align(beckett, BECKETT)
    together = threading.Barrier(4)

    def one(_: int) -> tuple[Word, ...]:
        together.wait(timeout=30)
        return aligner.align(beckett, BECKETT)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one, range(4))) == [expected] * 4


def test_it_works_on_after_its_memory_was_given_back(beckett: Waveform) -> None:
    aligner = PocketsphinxAligner(max_decoders=1)
    aligner.preload()
    before = aligner.align(beckett, BECKETT)

    aligner.close()

    assert aligner.align(beckett, BECKETT) == before


def test_features_have_no_mean_and_are_finite_on_digital_silence(beckett: Waveform) -> None:
    features = SphinxFeatures()
    half_silent = np.concatenate([beckett, np.zeros(SAMPLE_RATE_HZ, np.float32)])

    cepstra = features.cepstra(half_silent)

    assert cepstra.shape == ((half_silent.size - 410) // 160 + 1, 13)
    assert np.isfinite(cepstra).all()
    assert np.abs(cepstra.mean(axis=0)).max() < 1e-3


RECORDINGS = Path(os.environ.get("SPEECH_DIR", ""))


@pytest.mark.skipif(not (RECORDINGS / "manifest.jsonl").is_file(), reason="SPEECH_DIR names no recordings")
def test_turns_of_a_conversation_begin_and_end_with_their_words(aligner: PocketsphinxAligner) -> None:
    rows = [json.loads(line) for line in (RECORDINGS / "manifest.jsonl").read_text().splitlines()]
    row = next(r for r in rows if r["audio"].endswith("conversation-3-speakers.flac"))
    samples = load(RECORDINGS / row["audio"])
    errors: list[float] = []
    for turn in row["turns"]:
        begin = max(0.0, turn["start"] - 0.5)
        heard = samples[int(begin * SAMPLE_RATE_HZ) : int((turn["end"] + 0.5) * SAMPLE_RATE_HZ)]
        words = aligner.align(heard, turn["text"])
        errors += [begin + words[0].start - turn["start"], begin + words[-1].end - turn["end"]]

    assert np.median(np.abs(errors)) <= 0.05
    assert np.mean(np.abs(errors) <= 0.15) >= 0.9
