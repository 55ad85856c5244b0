"""Whole transcriptions over a scripted engine: what is asked of it, and what comes out."""

from __future__ import annotations

import io
import itertools
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voiceforge.errors import AudioTooLong, AudioTooShort, Cancelled, EngineFailed, UnsupportedOption
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.pcm import AudioInfo
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis, HypothesisSegment
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.tickets import Ticket
from voiceforge.speech.options import AudioLimits, TranscribeOptions
from voiceforge.speech.pipeline.batch import transcribe
from voiceforge.speech.pipeline.listen import Heard, ListenEvent, LocalListener, listen, listen_options
from voiceforge.speech.transcript.events import Finished, Progress, SegmentReady, TranscribeEvent
from voiceforge.speech.transcript.types import Language, Transcript, Word
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import FAKE_CAPABILITIES, FakeEngine, says, says_by_length

GREEDY = Capabilities(
    languages=frozenset({"en"}),
    longest_window_s=30.0,
    best_window_s=12.0,
    max_batch_rows=4,
    parallel_decodes=2,
)
"""Like the embedded engine: text and nothing else."""
LONGEST_WAIT_S = 20


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture(scope="module")
def beckett() -> Path:
    """Ten seconds, six sentences with pauses between them."""
    return sample_recordings()[0]


@pytest.fixture(scope="module")
def dickens() -> Path:
    """44 seconds of reading."""
    return sample_recordings()[1]


@pytest.fixture(scope="module")
def speech(beckett: Path) -> Waveform:
    with open_audio(beckett) as stream:
        return np.concatenate([block[0] for block in stream.blocks()])


def wav(samples: np.ndarray, rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate_hz, format="WAV", subtype="PCM_16")
    return out.getvalue()


def silence(seconds: float) -> Waveform:
    return np.zeros(int(seconds * SAMPLE_RATE_HZ), np.float32)


@contextmanager
def events_of(
    source: Path | bytes,
    engine: FakeEngine,
    vad: SileroModel,
    options: TranscribeOptions | None = None,
    aligner: Aligner | None = None,
    watch: Callable[[Ticket], None] = lambda ticket: None,
) -> Iterator[Iterator[TranscribeEvent]]:
    options = options or TranscribeOptions()
    batcher = Batcher(engine)
    ticket = batcher.open()
    watch(ticket)
    try:
        recording = LocalListener(lambda: vad).open(source, listen_options(options, ticket.capabilities))
        with closing(recording):
            yield transcribe(recording.events(), ticket, aligner, options)
    finally:
        ticket.close()
        batcher.close(grace_s=0)


def run(
    source: Path | bytes,
    engine: FakeEngine,
    vad: SileroModel,
    options: TranscribeOptions | None = None,
    aligner: Aligner | None = None,
) -> tuple[list[TranscribeEvent], Transcript]:
    with events_of(source, engine, vad, options, aligner) as events:
        *before, last = events
    assert isinstance(last, Finished)
    assert not any(isinstance(event, Finished) for event in before)
    return before, last.transcript


def codes(transcript: Transcript) -> list[str]:
    return [warning.code for warning in transcript.warnings]


def assert_sound(transcript: Transcript, before: Sequence[TranscribeEvent]) -> None:
    """What holds of every transcript."""
    segments = transcript.segments
    assert transcript.text == " ".join(segment.text for segment in segments)
    assert [segment.id for segment in segments] == list(range(len(segments)))
    assert [event.segment for event in before if isinstance(event, SegmentReady)] == list(segments)
    for segment in segments:
        assert 0.0 <= segment.start <= segment.end <= transcript.duration
        if segment.words:
            assert " ".join(word.text for word in segment.words) == segment.text
        for word in segment.words:
            assert segment.start <= word.start <= word.end <= segment.end
        for a, b in itertools.pairwise(segment.words):
            assert a.end <= b.start
    channels = {segment.channel for segment in segments}
    for channel in channels:
        for a, b in itertools.pairwise(s for s in segments if s.channel == channel):
            assert a.end <= b.start
    progress = [event.processed_s for event in before if isinstance(event, Progress)]
    assert progress == sorted(set(progress))
    assert progress[-1] == pytest.approx(transcript.duration)
    coverage = transcript.coverage
    assert 0.0 <= coverage.transcribed_s <= coverage.speech_s <= transcript.duration * transcript.channels
    for gap in coverage.gaps:
        assert 0.0 <= gap.start < gap.end <= transcript.duration
        assert gap.end - gap.start >= 0.5


@pytest.mark.parametrize("words", [False, True])
def test_events_come_in_order_and_end_in_the_document_they_made(
    dickens: Path, vad: SileroModel, words: bool
) -> None:
    before, transcript = run(dickens, FakeEngine(), vad, TranscribeOptions(words=words))
    assert_sound(transcript, before)
    assert transcript.text
    assert transcript.duration == pytest.approx(44.4, abs=0.1)
    assert bool(transcript.words) == words
    assert transcript.coverage.transcribed_s == transcript.coverage.speech_s > 33
    assert transcript.coverage.gaps == ()
    assert (transcript.model, transcript.removed, transcript.warnings) == (FakeEngine().model, (), ())
    assert transcript.rtf == pytest.approx(transcript.processing_s / transcript.duration)


def test_the_work_that_is_left_is_told_and_comes_to_an_end(dickens: Path, vad: SileroModel) -> None:
    engine = FakeEngine(capabilities=replace(GREEDY, max_batch_rows=1, parallel_decodes=1))
    with open_audio(dickens) as stream:
        reading = np.concatenate([block[0] for block in stream.blocks()])
    before, _ = run(wav(np.tile(reading, 4)), engine, vad)
    told = [event for event in before if isinstance(event, Progress) and event.work_left is not None]
    assert len(told) > 2
    assert [event.work_done for event in told] == sorted(event.work_done for event in told)
    whole = told[-1].work_done
    assert told[-1].work_left == pytest.approx(0.0, abs=0.05 * whole)
    for event in told:
        assert event.work_left is not None
        assert event.work_left + event.work_done == pytest.approx(whole, rel=0.35)


def test_segments_come_while_later_audio_is_still_undecoded(dickens: Path, vad: SileroModel) -> None:
    read_s = 0.0

    def counting(events: Iterator[ListenEvent]) -> Iterator[ListenEvent]:
        nonlocal read_s
        for event in events:
            if isinstance(event, Heard):
                read_s = event.decoded_s
            yield event

    batcher = Batcher(FakeEngine(capabilities=replace(GREEDY, max_batch_rows=1, parallel_decodes=1)))
    ticket = batcher.open()
    options = TranscribeOptions()
    seen_s: list[float] = []
    try:
        with open_audio(dickens) as stream:
            heard = counting(listen(stream, vad, listen_options(options, ticket.capabilities)))
            for event in transcribe(heard, ticket, None, options):
                if isinstance(event, SegmentReady):
                    seen_s.append(read_s)
    finally:
        ticket.close()
        batcher.close(grace_s=0)
    assert seen_s[0] < read_s


def test_windows_hold_all_speech_once_and_are_no_longer_than_the_engine_likes(
    dickens: Path, vad: SileroModel
) -> None:
    engine = FakeEngine(capabilities=GREEDY)
    _, transcript = run(dickens, engine, vad)
    lengths = [n / SAMPLE_RATE_HZ for call in engine.calls for n in call.window_samples]
    assert max(lengths) <= GREEDY.best_window_s + 0.4
    assert transcript.coverage.speech_s <= sum(lengths) <= transcript.duration


@pytest.mark.parametrize("longest_s", [1.0, 3.0, 15.0])
def test_no_window_is_longer_than_the_engine_can_take_whatever_the_padding(
    dickens: Path, vad: SileroModel, longest_s: float
) -> None:
    engine = FakeEngine(capabilities=replace(GREEDY, longest_window_s=longest_s, best_window_s=longest_s))
    options = replace(TranscribeOptions(), vad=replace(TranscribeOptions().vad, padding_ms=9_000))
    before, transcript = run(dickens, engine, vad, options)
    assert_sound(transcript, before)
    assert max(n for call in engine.calls for n in call.window_samples) <= longest_s * SAMPLE_RATE_HZ


def test_the_engine_is_asked_what_was_wished_and_what_it_ignores_is_listed(
    beckett: Path, vad: SileroModel
) -> None:
    wishes = TranscribeOptions(language="de", task="translate", prompt="p", beam_size=3)
    engine = FakeEngine()
    _, transcript = run(beckett, engine, vad, wishes)
    assert {call.options for call in engine.calls} == {
        DecodeOptions(language="de", task="translate", prompt="p", beam_size=3)
    }
    assert (transcript.language, transcript.task) == (Language("de", 1.0), "translate")
    _, greedy = run(beckett, FakeEngine(capabilities=GREEDY), vad, TranscribeOptions(prompt="p"))
    assert codes(greedy) == ["option_ignored"]


def test_a_wish_the_model_cannot_fulfil_stops_it_before_any_decode(beckett: Path, vad: SileroModel) -> None:
    engine = FakeEngine(capabilities=GREEDY)
    with pytest.raises(UnsupportedOption):
        run(beckett, engine, vad, TranscribeOptions(language="de"))
    assert engine.calls == ()


# -- words


def test_word_times_of_the_engine_are_moved_to_where_the_window_is(
    speech: Waveform, vad: SileroModel
) -> None:
    late = wav(np.concatenate([silence(20), speech]))
    for segment_times in (False, True):
        engine = FakeEngine(
            says("one two three"), capabilities=replace(FAKE_CAPABILITIES, segment_times=segment_times)
        )
        before, transcript = run(late, engine, vad, TranscribeOptions(words=True))
        assert_sound(transcript, before)
        assert not any(word.estimated for word in transcript.words)
        assert transcript.words[0].start > 19
        assert {word.confidence for word in transcript.words} == {0.9}
        assert "words_estimated" not in codes(transcript)


def test_where_nobody_knows_word_times_they_are_estimated_on_the_speech_and_said_to_be(
    beckett: Path, vad: SileroModel
) -> None:
    engine = FakeEngine(says("Ever tried. Ever failed."), capabilities=GREEDY)
    before, transcript = run(beckett, engine, vad, TranscribeOptions(words=True))
    assert_sound(transcript, before)
    assert [word.text for word in transcript.words][:4] == ["Ever", "tried.", "Ever", "failed."]
    assert all(word.estimated for word in transcript.words)
    assert codes(transcript) == ["words_estimated"]


@pytest.mark.parametrize("capabilities", [GREEDY, FAKE_CAPABILITIES])
def test_a_comma_written_twice_is_mended_in_text_and_words(
    beckett: Path, vad: SileroModel, capabilities: Capabilities
) -> None:
    engine = FakeEngine(says("In short,, it is."), capabilities=capabilities)
    before, transcript = run(beckett, engine, vad, TranscribeOptions(words=True))
    assert_sound(transcript, before)
    assert transcript.text.startswith("In short, it is.")
    assert [word.text for word in transcript.words][:4] == ["In", "short,", "it", "is."]
    assert not transcript.removed


class EvenAligner:
    """Every word gets an equal share of the audio it is given."""

    languages = frozenset({"en"})

    def align(self, samples: Waveform, text: str) -> tuple[Word, ...]:
        parts = text.split()
        step = len(samples) / SAMPLE_RATE_HZ / max(1, len(parts))
        return tuple(Word(part, i * step, (i + 1) * step) for i, part in enumerate(parts))


@pytest.mark.parametrize("segment_times", [False, True])
def test_an_aligner_supplies_the_word_times_an_engine_lacks(
    beckett: Path, vad: SileroModel, segment_times: bool
) -> None:
    def script(window: Waveform, options: DecodeOptions) -> Hypothesis:
        seconds = len(window) / SAMPLE_RATE_HZ
        halves = (("Ever tried.", 0.0, seconds / 2), ("Ever failed.", seconds / 2, seconds))
        segments = tuple(
            HypothesisSegment(start, end, text, word_confidences=(0.8, 0.7)) for text, start, end in halves
        )
        return Hypothesis(segments)

    capabilities = replace(GREEDY, segment_times=segment_times)
    engine = FakeEngine(script, capabilities=capabilities)
    _, transcript = run(beckett, engine, vad, TranscribeOptions(words=True), EvenAligner())
    assert transcript.words
    assert not any(word.estimated for word in transcript.words)
    assert {word.confidence for word in transcript.words} == {0.8, 0.7}
    if segment_times:
        for segment in transcript.segments:
            assert segment.start <= segment.words[0].start <= segment.words[-1].end <= segment.end


# -- channels


def test_split_channels_are_each_heard_and_sorted_by_time(speech: Waveform, vad: SileroModel) -> None:
    left = np.concatenate([speech, silence(12)])
    right = np.concatenate([silence(12), speech])
    both = wav(np.stack([left, right], axis=1))
    before, transcript = run(both, FakeEngine(), vad, TranscribeOptions(channels="split", words=True))
    assert_sound(transcript, before)
    assert transcript.channels == 2
    assert [segment.start for segment in transcript.segments] == sorted(s.start for s in transcript.segments)
    assert {segment.channel for segment in transcript.segments if segment.start < 11} == {0}
    assert {segment.channel for segment in transcript.segments if segment.start > 12} == {1}
    _, mixed = run(both, FakeEngine(), vad)
    assert {segment.channel for segment in mixed.segments} == {None}
    assert transcript.coverage.speech_s == pytest.approx(mixed.coverage.speech_s, abs=1.0)


# -- language


def test_the_language_is_that_of_most_of_the_speech(dickens: Path, vad: SileroModel) -> None:
    def script(window: Waveform, options: DecodeOptions) -> Hypothesis:
        heard = says("word " * 20, language="fr" if len(window) < 3 * SAMPLE_RATE_HZ else "de")
        return heard(window, options)

    _, transcript = run(dickens, FakeEngine(script), vad)
    assert transcript.language is not None
    assert transcript.language.code == "de"
    assert transcript.language.probability == pytest.approx(0.9)


def test_the_language_of_nothing_is_nobodys_guess(vad: SileroModel) -> None:
    _, transcript = run(wav(silence(2)), FakeEngine(), vad)
    assert transcript.language is None


# -- nothing lost in silence


def nothing(window: Waveform, options: DecodeOptions) -> Hypothesis:
    return Hypothesis(())


def test_speech_without_text_is_decoded_once_more_and_then_reported(beckett: Path, vad: SileroModel) -> None:
    heard = FakeEngine(capabilities=GREEDY)
    _, spoken = run(beckett, heard, vad)
    deaf = FakeEngine(nothing, capabilities=GREEDY)
    before, transcript = run(beckett, deaf, vad)
    assert_sound(transcript, before)
    assert (transcript.text, transcript.segments) == ("", ())
    assert transcript.coverage.transcribed_s == 0.0
    assert transcript.coverage.speech_s == pytest.approx(spoken.coverage.speech_s)
    assert {gap.reason for gap in transcript.coverage.gaps} == {"no_text"}
    reported = sum(gap.end - gap.start for gap in transcript.coverage.gaps)
    assert reported == pytest.approx(transcript.coverage.speech_s, abs=0.5 * len(transcript.coverage.gaps))
    assert codes(transcript) == ["no_speech"]
    first = sum(n for call in heard.calls for n in call.window_samples)
    again = sum(n for call in deaf.calls for n in call.window_samples) - first
    assert 0.6 * first < again <= first  # all of the speech once more, and none of it twice


def test_a_second_decode_that_finds_the_words_closes_the_gap(dickens: Path, vad: SileroModel) -> None:
    """As batched engines do: a long window comes back empty, its parts do not."""

    def deaf_to_long(window: Waveform, options: DecodeOptions) -> Hypothesis:
        script = nothing if len(window) > 8 * SAMPLE_RATE_HZ else says_by_length()
        return script(window, options)

    before, transcript = run(dickens, FakeEngine(deaf_to_long, capabilities=GREEDY), vad)
    assert_sound(transcript, before)
    assert transcript.coverage.gaps == ()
    assert transcript.coverage.transcribed_s == transcript.coverage.speech_s


def passes_over_the_second_half(window: Waveform, options: DecodeOptions, text: str) -> Hypothesis:
    """An engine with times of its own, which stops in the middle of any window over five seconds."""
    seconds = len(window) / SAMPLE_RATE_HZ
    if seconds <= 5:
        return Hypothesis((HypothesisSegment(0.0, seconds, text),))
    return Hypothesis((HypothesisSegment(0.0, seconds / 2, "the first half of it and some more words"),))


@pytest.mark.parametrize(
    ("text", "added", "gaps"),
    [("something new", True, 0), ("the first half", False, 0), ("", False, 1)],
    ids=["missed", "only timed wrongly", "nothing there"],
)
def test_a_region_that_the_text_passes_over_is_decoded_by_itself(
    speech: Waveform, vad: SileroModel, text: str, added: bool, gaps: int
) -> None:
    script = partial(passes_over_the_second_half, text=text)
    if not text:
        script = partial(passes_over_the_second_half, text="...")  # marks alone are nothing
    engine = FakeEngine(script, capabilities=replace(GREEDY, segment_times=True, best_window_s=29.0))
    before, transcript = run(wav(speech), engine, vad)
    assert_sound(transcript, before)
    assert ("something new" in transcript.text) is added
    assert bool(transcript.coverage.gaps) is bool(gaps)
    assert len(engine.calls) > 1


def test_gaps_of_neighbouring_pieces_are_one(speech: Waveform, vad: SileroModel) -> None:
    long_word = np.concatenate([silence(0.5), np.tile(speech[9_000:20_000], 9), silence(1)])
    _, transcript = run(wav(long_word), FakeEngine(nothing, capabilities=GREEDY), vad)
    for a, b in itertools.pairwise(transcript.coverage.gaps):
        assert a.end < b.start


# -- nothing invented


LOOP = "and so on and on " * 12


def test_a_loop_is_cut_listed_and_the_speech_decoded_again(dickens: Path, vad: SileroModel) -> None:
    loops = FakeEngine(says(LOOP), capabilities=GREEDY)
    before, transcript = run(dickens, loops, vad)
    assert_sound(transcript, before)
    assert {removal.reason for removal in transcript.removed} == {"repetition_loop"}
    assert all(segment.text.count("so on and on") == 1 for segment in transcript.segments)
    for removal in transcript.removed:
        assert 0.0 <= removal.start < removal.end <= transcript.duration
        assert removal.text

    def loops_on_long(window: Waveform, options: DecodeOptions) -> Hypothesis:
        script = says(LOOP) if len(window) > 8 * SAMPLE_RATE_HZ else says_by_length()
        return script(window, options)

    mended = FakeEngine(loops_on_long, capabilities=GREEDY)
    _, transcript = run(dickens, mended, vad)
    assert transcript.removed == ()
    assert "so on" not in transcript.text
    assert transcript.coverage.gaps == ()


def test_text_made_of_marks_alone_is_removed_and_listed(beckett: Path, vad: SileroModel) -> None:
    before, transcript = run(beckett, FakeEngine(says("♪ ... ♪")), vad)
    assert_sound(transcript, before)
    assert transcript.text == ""
    assert {removal.reason for removal in transcript.removed} == {"no_speech_hallucination"}
    assert {gap.reason for gap in transcript.coverage.gaps} == {"removed"}
    assert codes(transcript) == ["no_speech"]


# -- warnings


def test_digital_silence_is_silent(vad: SileroModel) -> None:
    engine = FakeEngine()
    before, transcript = run(wav(silence(12)), engine, vad)
    assert_sound(transcript, before)
    assert (transcript.text, codes(transcript)) == ("", ["silence", "no_speech"])
    assert engine.calls == ()
    assert len(before) > 1  # progress is told though nothing is recognised


def test_clipping_is_told(speech: Waveform, vad: SileroModel) -> None:
    loud = np.clip(speech * 40, -1, 1)
    assert "clipping" in codes(run(wav(loud), FakeEngine(), vad)[1])


def test_a_file_that_ends_in_the_middle_is_told(beckett: Path, vad: SileroModel) -> None:
    whole = beckett.read_bytes()
    _, transcript = run(whole[: len(whole) // 2], FakeEngine(), vad)
    assert codes(transcript) == ["truncated"]
    assert transcript.duration == pytest.approx(5.0, abs=0.2)


def test_a_rate_below_the_telephones_is_told(speech: Waveform, vad: SileroModel) -> None:
    assert "sample_rate_low" in codes(run(wav(speech[::3], SAMPLE_RATE_HZ // 3), FakeEngine(), vad)[1])
    assert codes(run(wav(speech[::2], SAMPLE_RATE_HZ // 2), FakeEngine(), vad)[1]) == []


# -- ends that are not the end


def test_a_failing_engine_ends_it_with_its_error(beckett: Path, vad: SileroModel) -> None:
    def breaks(window: Waveform, options: DecodeOptions) -> Hypothesis:
        raise EngineFailed("the runtime broke")

    with pytest.raises(EngineFailed, match="the runtime broke"):
        run(beckett, FakeEngine(breaks), vad)


def test_bad_lengths_are_found_at_the_end_and_on_the_way(beckett: Path, vad: SileroModel) -> None:
    with pytest.raises(AudioTooShort):
        run(wav(silence(0.05)), FakeEngine(), vad)
    with pytest.raises(AudioTooLong):
        run(beckett, FakeEngine(), vad, TranscribeOptions(limits=AudioLimits(max_duration_s=5)))


def test_closing_the_ticket_stops_it_while_the_engine_works(dickens: Path, vad: SileroModel) -> None:
    decoding, go_on = threading.Event(), threading.Event()

    def slow(window: Waveform, options: DecodeOptions) -> Hypothesis:
        decoding.set()
        assert go_on.wait(LONGEST_WAIT_S)
        return says("word")(window, options)

    capabilities = replace(GREEDY, max_batch_rows=1, parallel_decodes=1)
    engine = FakeEngine(slow, capabilities=capabilities)
    tickets: list[Ticket] = []

    def leave() -> None:
        assert decoding.wait(LONGEST_WAIT_S)
        tickets[0].close()
        go_on.set()

    leaver = threading.Thread(target=leave)
    with events_of(dickens, engine, vad, watch=tickets.append) as events:
        leaver.start()
        with pytest.raises(Cancelled):
            list(events)
    leaver.join()
    assert len(engine.calls) == 1


# -- memory


class OnDemand(Future[Hypothesis]):
    """Not done before somebody insists: the slowest engine there can be."""

    def __init__(self, queue: QueueOfOne, samples: int) -> None:
        super().__init__()
        self._queue, self._samples = queue, samples

    def result(self, timeout: float | None = None) -> Hypothesis:
        self._queue.waiting -= 1
        text = "as slow as any engine that is can ever be"
        return Hypothesis((HypothesisSegment(0.0, self._samples / SAMPLE_RATE_HZ, text),))


class QueueOfOne:
    """A ticket, and the engine behind it."""

    capabilities = replace(GREEDY, temperature=True)
    model = FakeEngine().model
    cancelled = False

    def __init__(self) -> None:
        self.waiting = self.most_waiting = 0

    def submit(self, window: Waveform, options: DecodeOptions) -> Future[Hypothesis]:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        return OnDemand(self, len(window))


class SpeaksInTurns:
    """A voice detector that hears speech and pauses of so many frames, whatever the audio."""

    def __init__(self, speech_frames: int, pause_frames: int) -> None:
        self._frames = itertools.cycle([0.9] * speech_frames + [0.0] * pause_frames)

    def run(self, frames: Waveform, state: Waveform) -> tuple[list[float], Waveform]:
        return list(itertools.islice(self._frames, len(frames))), state


class Endless:
    """A stream of so many seconds that is nowhere kept."""

    info = AudioInfo("made", "made", SAMPLE_RATE_HZ, 1, None)
    channel_count = 1
    truncated = False

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self.decoded_s = 0.0

    def blocks(self) -> Iterator[np.ndarray]:
        for _ in range(self._seconds):
            self.decoded_s += 1
            yield np.full((1, SAMPLE_RATE_HZ), 0.1, np.float32)


@pytest.mark.parametrize(
    ("speech_frames", "pause_frames"),
    [(0, 1), (1, 0), (100, 20), (20, 100), (4, 200)],
    ids=["silence", "speech without a pause", "talk", "a word now and then", "clicks"],
)
def test_memory_does_not_grow_with_length(speech_frames: int, pause_frames: int) -> None:
    def peak(seconds: int) -> int:
        queue = QueueOfOne()
        vad = SpeaksInTurns(speech_frames, pause_frames)
        options = TranscribeOptions(normalize_peak=False)
        tracemalloc.start()
        heard = listen(Endless(seconds), vad, listen_options(options, queue.capabilities))  # type: ignore[arg-type]
        for _ in transcribe(heard, queue, None, options):  # type: ignore[arg-type]
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        capabilities = queue.capabilities
        batches = 2 * capabilities.max_batch_rows * capabilities.parallel_decodes
        assert queue.most_waiting <= batches + 2  # and what one block brings
        return most

    megabyte = 1 << 20
    assert peak(900) < peak(300) + megabyte  # ten minutes of audio are 37
