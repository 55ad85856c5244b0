"""Runs that end in the middle, and others that go on from their chunks: the document is the same, and what
was recognised is not recognised again."""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceforge.services.samples import sample_recordings
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.batch import transcribe
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.checkpoints import Chunk, ChunkDone, WindowSpan, WorkEvent, fingerprint
from voiceforge.speech.pipeline.listen import Heard, LocalListener, listen_options
from voiceforge.speech.transcript import Finished, ModelRef, Progress, Segment, SegmentReady, Transcript, Word
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import FAKE_MODEL, FakeEngine, says, says_by_length

CAPABILITIES = Capabilities(
    languages=frozenset({"en", "de", "fr"}),
    longest_window_s=30.0,
    best_window_s=5.0,
    detects_language=True,
    max_batch_rows=2,
    parallel_decodes=2,
)
CHUNK_S = 12.0
MIX = TranscribeOptions(words=True)
SPLIT = TranscribeOptions(words=True, channels="split")
WISHES = pytest.mark.parametrize("options", [MIX, SPLIT], ids=["mix", "split"])


class EvenAligner:
    """Every word gets an equal share of the audio it is given."""

    languages = frozenset({"en"})

    def align(self, samples: Waveform, text: str) -> tuple[Word, ...]:
        parts = text.split()
        step = len(samples) / SAMPLE_RATE_HZ / max(1, len(parts))
        return tuple(Word(part, i * step, (i + 1) * step) for i, part in enumerate(parts))


@dataclass
class Moody:
    """A script that says something else of every window, nothing of some, goes round in loops in others, and
    changes its language; always the same of the same audio. Keeps a digest of all it was asked."""

    asked: list[bytes] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, window: Waveform, options: DecodeOptions) -> Hypothesis:
        with self.lock:
            self.asked.append(digest(window))
        mood = len(window) % 7
        if mood == 0:
            return Hypothesis(())
        if mood == 1:
            return says("and so on and on " * 12)(window, options)
        if mood == 2:
            return says("♪ ... ♪")(window, options)
        return says_by_length(language="de" if mood < 5 else "fr")(window, options)


@dataclass
class Run:
    events: list[WorkEvent] = field(repr=False)
    asked: list[bytes] = field(repr=False)

    @property
    def document(self) -> Transcript:
        """But for what it took."""
        last = self.events[-1]
        assert isinstance(last, Finished)
        return replace(last.transcript, processing_s=0.0, rtf=0.0)

    @property
    def chunks(self) -> list[Chunk]:
        return [event.chunk for event in self.events if isinstance(event, ChunkDone)]

    @property
    def segments(self) -> list[Segment]:
        return [event.segment for event in self.events if isinstance(event, SegmentReady)]


@dataclass
class Studio:
    """Works on one recording."""

    content: bytes
    vad: SileroModel

    def run(
        self,
        options: TranscribeOptions,
        done: Sequence[Chunk] = (),
        *,
        leave_after: int | None = None,
        model: ModelRef = FAKE_MODEL,
        recipe: str = "",
    ) -> Run:
        """
        Args:
            leave_after: so many events; None: the end.
        """
        moody = Moody()
        batcher = Batcher(FakeEngine(moody, capabilities=CAPABILITIES, model=model))
        ticket = batcher.open()
        try:
            with self._heard(options) as recording:
                events = transcribe(
                    recording.events(),
                    ticket,
                    EvenAligner(),
                    options,
                    done=done,
                    chunk_s=CHUNK_S,
                    recipe=recipe,
                )
                told = list(itertools.islice(events, leave_after))
        finally:
            ticket.close()
            batcher.close(grace_s=0)
        return Run(told, moody.asked)

    def windows(self, options: TranscribeOptions) -> list[WindowAudio]:
        with self._heard(options) as recording:
            return [w for event in recording.events() if isinstance(event, Heard) for w in event.windows]

    def _heard(self, options: TranscribeOptions) -> closing:  # type: ignore[type-arg]
        return closing(
            LocalListener(lambda: self.vad).open(self.content, listen_options(options, CAPABILITIES))
        )


def digest(window: Waveform) -> bytes:
    return hashlib.sha256(window.tobytes()).digest()


def wav(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return out.getvalue()


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture(scope="module")
def speech() -> Waveform:
    """A minute and a half; no window of it is like another."""
    clips = []
    for path in sample_recordings():
        with open_audio(path) as stream:
            clips.append(np.concatenate([block[0] for block in stream.blocks()]))
    beckett, dickens = clips
    pause = np.zeros(int(2.7 * SAMPLE_RATE_HZ), np.float32)
    return np.concatenate([dickens, pause, beckett, pause, 0.7 * dickens[SAMPLE_RATE_HZ * 11 :]])


@pytest.fixture(scope="module")
def studio(speech: Waveform, vad: SileroModel) -> Studio:
    """Two channels that speak at other times."""
    return Studio(wav(np.stack([speech, np.roll(speech, 7 * SAMPLE_RATE_HZ)], axis=1)), vad)


@pytest.fixture(scope="module")
def undisturbed(studio: Studio) -> dict[TranscribeOptions, Run]:
    return {options: studio.run(options) for options in (MIX, SPLIT)}


@WISHES
def test_the_recording_has_all_there_is_to_lose(
    undisturbed: dict[TranscribeOptions, Run], options: TranscribeOptions
) -> None:
    whole = undisturbed[options]
    document = whole.document
    assert len(whole.chunks) > 4
    assert document.coverage.gaps
    assert document.removed
    assert document.language is not None
    assert {language.code for language in whole.chunks[-1].totals.languages} == {"de", "en", "fr"}
    assert {segment.channel for segment in document.segments} == ({0, 1} if options is SPLIT else {None})


@WISHES
def test_chunks_hold_what_was_settled_since_the_last(
    studio: Studio, undisturbed: dict[TranscribeOptions, Run], options: TranscribeOptions
) -> None:
    whole = undisturbed[options]
    windows = [WindowSpan(w.channel, w.window.start, w.window.end) for w in studio.windows(options)]
    chunks = whole.chunks
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert [span for chunk in chunks for span in chunk.windows] == windows[: chunks[-1].past_window]
    past = 0
    for chunk in chunks:
        assert chunk.first_window == past
        past = chunk.past_window
        lengths = [(span.end - span.start) / SAMPLE_RATE_HZ for span in chunk.windows]
        assert sum(lengths[:-1]) < CHUNK_S <= sum(lengths)
        assert chunk.fingerprint == fingerprint(options, FAKE_MODEL, "")
    for a, b in itertools.pairwise(chunks):
        assert a.end == b.start
        assert a.totals.processing_s < b.totals.processing_s
    assert chunks[0].start == 0.0
    for chunk in chunks:
        assert chunk.start <= chunk.end <= whole.document.duration
    segments = [segment for chunk in chunks for segment in chunk.segments]
    if options is MIX:
        assert segments == whole.segments[: len(segments)]
    known: list[Segment] = []
    for event in whole.events:
        if isinstance(event, SegmentReady):
            known.append(event.segment)
        elif isinstance(event, ChunkDone) and options is MIX:  # split channels are put in order at the end
            own = event.chunk.segments
            assert tuple(known[len(known) - len(own) :]) == own


@WISHES
def test_cut_after_any_chunk_the_document_is_the_same_and_nothing_is_recognised_twice(
    studio: Studio, undisturbed: dict[TranscribeOptions, Run], options: TranscribeOptions
) -> None:
    whole = undisturbed[options]
    windows = [digest(audio.samples) for audio in studio.windows(options)]
    assert len(set(windows)) == len(windows)
    for count in range(1, len(whole.chunks) + 1):
        done = whole.chunks[:count]
        again = studio.run(options, done)
        assert again.document == whole.document
        assert again.segments == whole.segments
        past = done[-1].past_window
        assert not set(windows[:past]) & set(again.asked)
        assert set(windows[past:]) <= set(again.asked)
        assert len(again.asked) <= len(whole.asked) - past
        assert [(c.index, c.windows, c.segments, c.gaps, c.removed) for c in again.chunks] == [
            (c.index, c.windows, c.segments, c.gaps, c.removed) for c in whole.chunks[count:]
        ]
        # Told first, before anything is heard again.
        assert again.events[0] == Progress(done[-1].end, whole.document.duration)
        progress = [event.processed_s for event in again.events if isinstance(event, Progress)]
        assert progress == sorted(set(progress))


@settings(max_examples=8, deadline=None)
@given(data=st.data(), options=st.sampled_from([MIX, SPLIT]))
def test_however_often_it_is_cut_and_wherever(
    studio: Studio,
    undisturbed: dict[TranscribeOptions, Run],
    data: st.DataObject,
    options: TranscribeOptions,
) -> None:
    kept: list[Chunk] = []
    for _ in range(data.draw(st.integers(1, 3), label="crashes")):
        leave = data.draw(st.integers(0, len(undisturbed[options].events) - 1), label="after events")
        kept += studio.run(options, kept, leave_after=leave).chunks
        assert [chunk.index for chunk in kept] == list(range(len(kept)))
    last = studio.run(options, kept)
    assert last.document == undisturbed[options].document
    assert last.segments == undisturbed[options].segments


def test_what_it_took_before_counts(studio: Studio, undisturbed: dict[TranscribeOptions, Run]) -> None:
    done = undisturbed[MIX].chunks
    hours = replace(done[-1], totals=replace(done[-1].totals, processing_s=7200.0))
    last = studio.run(MIX, [*done[:-1], hours]).events[-1]
    assert isinstance(last, Finished)
    assert last.transcript.processing_s > 7200.0


def test_without_a_wish_for_chunks_there_are_none(studio: Studio, vad: SileroModel) -> None:
    batcher = Batcher(FakeEngine(Moody(), capabilities=CAPABILITIES))
    ticket = batcher.open()
    heard = LocalListener(lambda: vad).open(studio.content, listen_options(MIX, CAPABILITIES)).events()
    kinds = {type(event) for event in transcribe(heard, ticket, None, MIX)}
    batcher.close(grace_s=0)
    assert kinds == {Progress, SegmentReady, Finished}


# -- chunks that do not fit


def kept_after(run: Run, done: Sequence[Chunk]) -> list[Chunk]:
    """What is kept once the chunks of another run have taken their places."""
    first = run.chunks[0].index if run.chunks else len(done)
    return [*done[:first], *run.chunks]


@WISHES
def test_from_where_the_recording_is_another_all_is_done_anew(
    studio: Studio, undisturbed: dict[TranscribeOptions, Run], vad: SileroModel, options: TranscribeOptions
) -> None:
    """The first half is the same; the other ends in the middle of a chunk, or goes on with something else."""
    samples, _ = soundfile.read(io.BytesIO(studio.content), dtype="float32")
    half = samples[: len(samples) // 2]
    done = undisturbed[options].chunks
    for content in (half, np.concatenate([half, samples])):
        other = Studio(wav(content), vad)
        fresh = other.run(options)
        again = other.run(options, done)
        assert again.document == fresh.document
        assert again.segments == fresh.segments
        assert len(again.asked) < len(fresh.asked)
        kept = kept_after(again, done)
        if again.chunks:
            assert [chunk.windows for chunk in kept] == [chunk.windows for chunk in fresh.chunks]
            assert again.chunks[0].index > 0
            assert other.run(options, kept).document == fresh.document


@WISHES
@pytest.mark.parametrize("bad", [0, 2])
@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_one_window_that_lies_elsewhere_undoes_its_chunk_and_those_after(
    studio: Studio,
    undisturbed: dict[TranscribeOptions, Run],
    options: TranscribeOptions,
    bad: int,
    place: int,
) -> None:
    whole = undisturbed[options]
    done = whole.chunks
    windows = list(done[bad].windows)
    windows[place] = replace(windows[place], end=windows[place].end + 1)
    again = studio.run(options, [*done[:bad], replace(done[bad], windows=tuple(windows)), *done[bad + 1 :]])
    assert again.document == whole.document
    assert again.segments == whole.segments
    assert [chunk.index for chunk in again.chunks] == list(range(bad, len(done)))
    expected = {digest(a.samples) for a in studio.windows(options)[done[bad].first_window :]}
    assert expected <= set(again.asked)


@WISHES
def test_windows_of_a_chunk_that_never_completes_are_recognised_at_the_end(
    studio: Studio, undisturbed: dict[TranscribeOptions, Run], options: TranscribeOptions
) -> None:
    whole = undisturbed[options]
    first, second = whole.chunks[:2]
    rest = studio.windows(options)[second.first_window :]
    spans = [WindowSpan(w.channel, w.window.start, w.window.end) for w in rest]
    longer = replace(second, windows=(*spans, WindowSpan(0, 1 << 40, 1 << 41)), end=first.end + 0.1)
    again = studio.run(options, [first, longer])
    assert again.document == whole.document
    assert {digest(audio.samples) for audio in rest} <= set(again.asked)
    # Nothing counts as done while it is held back.
    early = itertools.takewhile(lambda event: not isinstance(event, ChunkDone), again.events)
    told = [event.processed_s for event in early if isinstance(event, Progress)]
    assert told[0] == longer.end
    assert max(told) <= whole.chunks[1].end


def spoilt(chunks: list[Chunk]) -> Iterator[tuple[list[Chunk], int]]:
    """Chunks, and how many of them may be used."""
    yield chunks[1:], 0
    yield [chunks[0], *chunks[2:]], 1
    yield [chunks[0], chunks[0], *chunks[1:]], 1
    yield [chunks[1], chunks[0]], 0
    yield [*chunks[:2], replace(chunks[2], fingerprint="another"), *chunks[3:]], 2
    yield [*chunks[:2], replace(chunks[2], windows=()), *chunks[3:]], 2
    yield [*chunks[:2], replace(chunks[2], first_window=chunks[2].first_window + 1)], 2


def test_chunks_that_do_not_follow_each_other_are_not_used(
    studio: Studio, undisturbed: dict[TranscribeOptions, Run]
) -> None:
    whole = undisturbed[MIX]
    for chunks, usable in spoilt(whole.chunks):
        again = studio.run(MIX, chunks)
        assert again.document == whole.document
        assert again.chunks[0].index == usable


@pytest.mark.parametrize(
    ("options", "model", "recipe"),
    [
        (replace(MIX, language="de"), FAKE_MODEL, ""),
        (MIX, replace(FAKE_MODEL, revision="2"), ""),
        (MIX, replace(FAKE_MODEL, id="other"), ""),
        (MIX, FAKE_MODEL, "1.1"),
    ],
    ids=["options", "revision", "model", "program"],
)
def test_chunks_of_another_run_are_not_used(
    studio: Studio,
    undisturbed: dict[TranscribeOptions, Run],
    options: TranscribeOptions,
    model: ModelRef,
    recipe: str,
) -> None:
    again = studio.run(options, undisturbed[MIX].chunks, model=model, recipe=recipe)
    assert again.chunks[0].index == 0
    assert {digest(audio.samples) for audio in studio.windows(options)} <= set(again.asked)
    assert isinstance(again.events[0], Progress)
    assert again.events[0].processed_s < again.chunks[0].end
