"""The product's pipeline in this process, put together from its public parts; any may be exchanged."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.audio.level import lifted
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.tickets import Priority
from voiceforge.speech.options import RawFormat, StreamOptions, TranscribeOptions, VadOptions
from voiceforge.speech.pipeline.batch import transcribe
from voiceforge.speech.pipeline.channel import ChannelFeed
from voiceforge.speech.pipeline.listen import Listener, listen_options
from voiceforge.speech.pipeline.recogniser import DecodeResult, DecodeWanted
from voiceforge.speech.pipeline.stream import GatedRecogniser
from voiceforge.speech.pipeline.stream_final import settle_wish
from voiceforge.speech.pipeline.windows import PackingRule
from voiceforge.speech.transcript.events import Finished
from voiceforge.speech.transcript.types import Transcript
from voiceforge.speech.vad.regions import RegionDetector
from voiceforge.speech.vad.silero import SileroModel, SpeechProbabilities
from voiceforge.testing.scripted_stream import Driver

Samples = NDArray[np.float32]

EMBEDDED_MODEL = "moonshine-tiny-en"


def embedded_model_folder() -> Path:
    from voiceforge.infra.modelstore.wheel import find_in_wheel
    from voiceforge.speech.engines.catalog import find_entry

    entry = find_entry(EMBEDDED_MODEL)
    installed = find_in_wheel(entry) if entry else None
    if installed is None:
        raise SystemExit("the embedded model is not installed")
    return installed.files.path


def transcribe_file(
    path: Path, batcher: Batcher, listener: Listener, options: TranscribeOptions | None = None
) -> Transcript:
    return _transcribe(path, batcher, listener, options or TranscribeOptions())


def transcribe_samples(samples: Samples, batcher: Batcher, listener: Listener) -> Transcript:
    """samples: float32, shape (n_samples,), 16 kHz mono."""
    return _transcribe(samples.tobytes(), batcher, listener, TranscribeOptions(raw=RawFormat("f32le")))


def _transcribe(
    source: Path | bytes, batcher: Batcher, listener: Listener, options: TranscribeOptions
) -> Transcript:
    ticket = batcher.open()
    try:
        with closing(listener.open(source, listen_options(options, ticket.capabilities))) as recording:
            for event in transcribe(recording.events(), ticket, None, options):
                if isinstance(event, Finished):
                    return event.transcript
    finally:
        ticket.close()
    raise AssertionError("the pipeline ended without a transcript")


def stream_text(
    samples: Samples, batcher: Batcher, vad: SileroModel, options: StreamOptions, *, piece_ms: int = 100
) -> str:
    """The finals of a live stream of these samples, every wish answered before the next piece comes."""
    ticket = batcher.open(Priority.LIVE)

    def decode(wanted: DecodeWanted) -> DecodeResult:
        heard = ticket.submit(wanted.audio.samples, wanted.plan.decode).result()
        return heard if wanted.purpose == "interim" else settle_wish(wanted, heard, ticket, None)

    recogniser = GatedRecogniser(options, ticket.capabilities, (), SpeechProbabilities(vad))
    driver = Driver(recogniser, decode)
    piece = piece_ms * SAMPLE_RATE_HZ // 1000
    try:
        driver.push(samples, [piece] * (len(samples) // piece))
        driver.close()
    finally:
        ticket.close()
    return driver.text


def windows_of(samples: Samples, best_window_s: float) -> list[Samples]:
    """The windows that the pipeline would hand to an engine."""
    vad = VadOptions()
    padding = vad.padding_ms * SAMPLE_RATE_HZ // 1000
    target = int(best_window_s * SAMPLE_RATE_HZ)
    feed = ChannelFeed(
        0,
        probabilities=SpeechProbabilities(SileroModel()),
        detector=RegionDetector(vad, target),
        rule=PackingRule(target_samples=target, padding_samples=padding),
    )
    return [lifted(window.samples) for window in (*feed.push(samples), *feed.flush())]
