"""Live streams on the embedded engine and the two recordings of its wheel: the words of a file, live."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from voiceforge.infra.modelstore.wheel import find_in_wheel
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.alignment.english_pocketsphinx import PocketsphinxAligner
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.catalog import find_entry
from voiceforge.speech.engines.moonshine_ort import MoonshineOrt
from voiceforge.speech.options import StreamOptions, TranscribeOptions
from voiceforge.speech.pipeline.batch import transcribe
from voiceforge.speech.pipeline.listen import LocalListener, listen_options
from voiceforge.speech.pipeline.recogniser import DecodeResult, DecodeWanted
from voiceforge.speech.pipeline.stream import GatedRecogniser
from voiceforge.speech.pipeline.stream_document import StreamDocument
from voiceforge.speech.pipeline.stream_final import settle_wish
from voiceforge.speech.training.evaluation import Scorer
from voiceforge.speech.transcript.events import Finished
from voiceforge.speech.transcript.types import ModelRef, Transcript
from voiceforge.speech.vad.silero import SileroModel, SpeechProbabilities
from voiceforge.testing.scripted_stream import Driver

PIECE = 1_600


@dataclass(frozen=True)
class House:
    """Everything a stream needs but its audio."""

    batcher: Batcher
    vad: SileroModel
    aligner: PocketsphinxAligner

    def file(self, path: Path) -> Transcript:
        ticket, options = self.batcher.open(), TranscribeOptions()
        listener = LocalListener(lambda: self.vad)
        try:
            with closing(listener.open(path, listen_options(options, ticket.capabilities))) as recording:
                *_, last = transcribe(recording.events(), ticket, None, options)
        finally:
            ticket.close()
        assert isinstance(last, Finished)
        return last.transcript

    def live(self, samples: Waveform, options: StreamOptions, piece: int = PIECE) -> Driver:
        ticket = self.batcher.open()

        def decode(wanted: DecodeWanted) -> DecodeResult:
            heard = ticket.submit(wanted.audio.samples, wanted.plan.decode).result()
            return heard if wanted.purpose == "interim" else settle_wish(wanted, heard, ticket, self.aligner)

        recogniser = GatedRecogniser(
            options, ticket.capabilities, self.aligner.languages, SpeechProbabilities(self.vad)
        )
        driver = Driver(recogniser, decode)
        try:
            driver.push(samples, [piece] * (len(samples) // piece))
            driver.close()
        finally:
            ticket.close()
        return driver


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    entry = find_entry("moonshine-tiny-en")
    assert entry
    found = find_in_wheel(entry)
    assert found
    batcher = Batcher(MoonshineOrt(found.files.path, ModelRef(entry.id, "test"), parallel_decodes=1))
    yield House(batcher, SileroModel(), PocketsphinxAligner(max_decoders=1))
    batcher.close(grace_s=0)


def samples_of(path: Path) -> Waveform:
    with open_audio(path) as stream:
        return np.concatenate([block[0] for block in stream.blocks()])


def errors(reference: str, text: str) -> tuple[int, int]:
    """(wrong words, words there are)."""
    counts = Scorer("whisper-english").score(reference, text, "en").words
    return counts.errors, counts.reference


@pytest.mark.parametrize(
    ("recording", "endpointing_ms", "most_wrong"), [(0, 300, 1), (1, 300, 6), (1, 100, 10)]
)
def test_finals_say_what_the_file_says(
    house: House, recording: int, endpointing_ms: int, most_wrong: int
) -> None:
    path = sample_recordings()[recording]
    wrong, there_are = errors(
        house.file(path).text,
        house.live(samples_of(path), StreamOptions(interim=False, endpointing_ms=endpointing_ms)).text,
    )
    assert there_are > 10
    assert wrong <= most_wrong


def test_finals_with_interims_say_nearly_what_those_without_say(house: House) -> None:
    samples = samples_of(sample_recordings()[1])[: 17 * 16_000]
    plain = house.live(samples, StreamOptions(interim=False))
    live = house.live(samples, StreamOptions(interim_every_ms=800))
    wrong, there_are = errors(plain.text, live.text)
    assert wrong <= 0.05 * there_are
    assert len(live.interims) > len(live.finals)


def test_the_pieces_it_comes_in_change_no_letter_and_no_time(house: House) -> None:
    samples = samples_of(sample_recordings()[0])
    options = StreamOptions(interim=False)
    assert house.live(samples, options, 333).finals == house.live(samples, options, 40_000).finals


def test_every_second_of_speech_is_accounted_for(house: House) -> None:
    path = sample_recordings()[0]
    driver = house.live(samples_of(path), StreamOptions(interim=False))
    document = StreamDocument(ModelRef("moonshine-tiny-en", "test"))
    for final in driver.finals:
        document.add(final)
    live, file = document.transcript([driver.recogniser]), house.file(path)
    assert live.coverage == file.coverage
    assert live.text == driver.text
    assert sum(word.estimated for word in live.words) <= 1  # it heard one that no dictionary has
    assert live.duration == pytest.approx(file.duration)


def test_what_is_said_last_is_there_however_soon_the_close_comes(house: House) -> None:
    samples = samples_of(sample_recordings()[0])[: int(8.9 * 16_000)]
    assert "better" in house.live(samples, StreamOptions(interim=False)).text.lower()
