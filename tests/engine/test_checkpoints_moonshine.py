"""The embedded engine, going on from its chunks: the document of a run that never stopped."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from voiceforge.infra.modelstore.wheel import find_in_wheel
from voiceforge.services.chunk_codec import ChunkCodec
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.alignment.english_pocketsphinx import PocketsphinxAligner
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.catalog import find_entry
from voiceforge.speech.engines.moonshine_ort import MoonshineOrt
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.batch import transcribe
from voiceforge.speech.pipeline.checkpoints import Chunk, ChunkDone, WorkEvent
from voiceforge.speech.pipeline.listen import LocalListener, listen_options
from voiceforge.speech.transcript import Finished, ModelRef, SegmentReady, Transcript

Go = Callable[..., list[WorkEvent]]


@pytest.fixture(scope="module")
def go() -> Iterator[Go]:
    entry = find_entry("moonshine-tiny-en")
    assert entry
    found = find_in_wheel(entry)
    assert found
    batcher = Batcher(MoonshineOrt(found.files.path, ModelRef(entry.id, "test"), parallel_decodes=2))
    listener, aligner = LocalListener(), PocketsphinxAligner(max_decoders=1)

    def go(
        content: bytes, options: TranscribeOptions, done: Sequence[Chunk] = (), leave_after: int | None = None
    ) -> list[WorkEvent]:
        ticket = batcher.open()
        try:
            with closing(listener.open(content, listen_options(options, ticket.capabilities))) as recording:
                events = transcribe(recording.events(), ticket, aligner, options, done=done, chunk_s=20.0)
                return list(itertools.islice(events, leave_after))
        finally:
            ticket.close()

    yield go
    batcher.close(grace_s=0)


@pytest.fixture(scope="module")
def speech() -> Waveform:
    """Two minutes, in two loudnesses, with noise behind the second part."""
    clips = []
    for path in sample_recordings():
        with open_audio(path) as stream:
            clips.append(np.concatenate([block[0] for block in stream.blocks()]))
    beckett, dickens = clips
    pause = np.zeros(int(2.2 * SAMPLE_RATE_HZ), np.float32)
    joined = np.concatenate([dickens, pause, beckett, pause, 0.5 * dickens, 0.8 * beckett])
    joined[len(joined) // 2 :] += np.random.default_rng(1).normal(0, 0.004, len(joined) - len(joined) // 2)
    return joined


def wav(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return out.getvalue()


def document(events: Sequence[WorkEvent]) -> Transcript:
    """But for what it took."""
    last = events[-1]
    assert isinstance(last, Finished)
    return replace(last.transcript, processing_s=0.0, rtf=0.0)


def chunks(events: Sequence[WorkEvent]) -> list[Chunk]:
    """As they come back from where they were kept."""
    codec = ChunkCodec()
    told = [event.chunk for event in events if isinstance(event, ChunkDone)]
    return [codec.unpack("job", codec.pack("job", chunk)) for chunk in told]


def test_cut_after_any_chunk_and_in_the_middle_of_one(go: Go, speech: Waveform) -> None:
    content, options = wav(speech), TranscribeOptions(words=True)
    whole = go(content, options)
    kept = chunks(whole)
    assert len(kept) >= 3
    for count in range(1, len(kept) + 1):
        again = go(content, options, kept[:count])
        assert document(again) == document(whole)
        assert [e for e in again if isinstance(e, SegmentReady)] == [
            e for e in whole if isinstance(e, SegmentReady)
        ]
    first = next(i for i, event in enumerate(whole) if isinstance(event, ChunkDone))
    cut = go(content, options, leave_after=first + 3)
    assert document(go(content, options, chunks(cut))) == document(whole)


def test_channels_apart(go: Go, speech: Waveform) -> None:
    minute = speech[: 60 * SAMPLE_RATE_HZ]
    content = wav(np.stack([minute, np.roll(minute, 20 * SAMPLE_RATE_HZ)], axis=1))
    options = TranscribeOptions(channels="split")
    whole = go(content, options)
    kept = chunks(whole)
    assert len(kept) >= 2
    again = go(content, options, kept[:-1])
    assert document(again) == document(whole)
    assert {segment.channel for segment in document(again).segments} == {0, 1}
