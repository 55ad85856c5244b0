from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from voiceforge.errors import UnsupportedOption
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.options import StreamOptions
from voiceforge.speech.pipeline.recogniser import DecodeDropped, DecodeResult, DecodeWanted
from voiceforge.speech.pipeline.stream_document import StreamDocument
from voiceforge.speech.pipeline.stream_final import settle_wish
from voiceforge.speech.transcript.stream_events import (
    Closed,
    Final,
    Flushed,
    Interim,
    SpeechStarted,
    UtteranceEnd,
)
from voiceforge.speech.transcript.types import ModelRef, Word
from voiceforge.testing.fake_engine import FakeEngine, says
from voiceforge.testing.scripted_stream import (
    GREEDY,
    Driver,
    answer,
    audio,
    heard,
    recogniser,
    settled,
    words_in,
)

SILENT = StreamOptions(interim=False)
PIECE = 1_600


def pieces(samples: np.ndarray) -> list[int]:
    return [PIECE] * (len(samples) // PIECE)


def run(samples: np.ndarray, options: StreamOptions, answer=answer) -> Driver:
    driver = Driver(recogniser(options), answer)
    driver.push(samples, pieces(samples))
    driver.close()
    return driver


def kinds(driver: Driver) -> list[str]:
    return [type(event).__name__ for event in driver.events]


# -- what is told, and when


def test_an_utterance_is_told_from_its_start_to_its_final() -> None:
    driver = run(audio((1.0, 0), (1.0, 1), (1.0, 0)), SILENT)
    started, final, closed = driver.events
    assert started == SpeechStarted(0, pytest.approx(1.024))
    assert isinstance(final, Final)
    assert (final.utterance, final.text, final.reason) == (0, "w5 w6 w7 w8 w9", "silence")
    assert (final.start, final.end) == (1.0, pytest.approx(2.016))
    assert closed == Closed(3.0)


def test_the_final_is_wished_for_before_the_pause_has_ended_the_utterance() -> None:
    driver = Driver(recogniser(SILENT))
    driver.push(audio((1.0, 1), (0.2, 0)))
    assert [wish.purpose for wish in driver.wishes] == ["speculative"]
    assert driver.finals == []
    driver.push(audio((0.2, 0)))
    assert len(driver.wishes) == 1
    assert [final.text for final in driver.finals] == ["w0 w1 w2 w3 w4"]


def test_a_speculation_is_dropped_when_speech_goes_on() -> None:
    heard_of = recogniser(SILENT)
    (_, wish) = heard_of.push(audio((1.0, 1), (0.2, 0)))
    assert isinstance(wish, DecodeWanted)
    assert heard_of.push(audio((0.2, 1))) == [DecodeDropped(wish.id)]
    assert heard_of.decoded(wish.id, answer(wish)) == []


def test_a_speculation_that_was_shed_is_wished_for_again_as_a_final() -> None:
    def shed(wanted: DecodeWanted) -> DecodeResult:
        return None if wanted.purpose == "speculative" else answer(wanted)

    driver = run(audio((1.0, 1), (1.0, 0)), SILENT, shed)
    speculative, final = driver.wishes
    assert (speculative.purpose, final.purpose) == ("speculative", "final")
    assert np.array_equal(speculative.audio.samples, final.audio.samples)
    assert driver.text == "w0 w1 w2 w3 w4"


def test_with_an_endpoint_no_longer_than_the_tail_there_is_nothing_to_speculate_on() -> None:
    driver = run(audio((1.0, 1), (1.0, 0)), replace(SILENT, endpointing_ms=30))
    assert [wish.purpose for wish in driver.wishes] == ["final"]


def test_before_a_short_endpoint_there_is_time_to_decode() -> None:
    driver = run(audio((1.0, 1), (1.0, 0)), replace(SILENT, endpointing_ms=100))
    assert [wish.purpose for wish in driver.wishes] == ["speculative"]
    assert driver.text == "w0 w1 w2 w3 w4"


def test_finals_come_in_order_whatever_order_the_answers_come_in() -> None:
    heard_of = recogniser(replace(SILENT, endpointing_ms=100))
    out = heard_of.push(audio((1.0, 1), (0.5, 0), (1.0, 1), (0.5, 0)))
    first, second = (o for o in out if isinstance(o, DecodeWanted))
    assert heard_of.decoded(second.id, answer(second)) == []
    told = heard_of.decoded(first.id, answer(first))
    assert [(e.utterance, e.text) for e in told if isinstance(e, Final)] == [
        (0, "w0 w1 w2 w3 w4"),
        (1, "w8 w9 w10 w11 w12"),
    ]


def test_a_long_utterance_comes_in_several_finals_and_began_once() -> None:
    driver = run(audio((5.0, 1), (0.1, 0.4), (4.0, 1), (1.0, 0)), replace(SILENT, max_utterance_s=6.0))
    assert [final.reason for final in driver.finals] == ["max_length", "silence"]
    assert kinds(driver).count("SpeechStarted") == 1
    assert driver.text == " ".join(f"w{i}" for i in range(46) if (i != 99 and i < 45) or i == 45)


def test_speech_without_words_tells_its_end_in_place_of_a_final_and_is_a_gap() -> None:
    driver = run(audio((1.0, 1), (1.0, 0)), SILENT, lambda wanted: settled(wanted.audio.window, []))
    assert kinds(driver) == ["SpeechStarted", "SpeechEnded", "Closed"]
    coverage = driver.recogniser.account.coverage()
    assert (coverage.speech_s, coverage.transcribed_s) == (pytest.approx(1.024), 0.0)
    assert len(coverage.gaps) == 1


def test_what_an_interim_said_is_taken_back_by_a_final_even_if_that_is_empty() -> None:
    def only_interims(wanted: DecodeWanted) -> DecodeResult:
        return heard("hm") if wanted.purpose == "interim" else settled(wanted.audio.window, [])

    driver = run(audio((0.6, 1), (1.0, 0)), StreamOptions(), only_interims)
    assert kinds(driver) == ["SpeechStarted", "Interim", "Interim", "Final", "Closed"]
    assert driver.interims[1].text == ""
    assert driver.finals[0].segments == ()


# -- finalize and close


def test_a_finalize_with_nothing_pending_is_answered_at_once() -> None:
    driver = Driver(recogniser(SILENT))
    driver.finalize()
    driver.push(audio((1.0, 0)))
    driver.finalize()
    assert driver.events == [Flushed(0.0), Flushed(1.0)]


def test_a_finalize_in_the_middle_of_speech_ends_it_there() -> None:
    driver = Driver(recogniser(SILENT))
    driver.push(audio((1.0, 1)))
    driver.finalize()
    driver.push(audio((1.0, 1), (1.0, 0)))
    driver.close()
    assert [(f.text, f.reason) for f in driver.finals] == [
        ("w0 w1 w2 w3 w4", "finalize"),
        ("w5 w6 w7 w8 w9", "silence"),
    ]
    assert kinds(driver) == ["SpeechStarted", "Final", "Flushed", "Final", "Closed"]


def test_a_finalize_is_answered_with_a_final_even_where_nothing_was_recognised() -> None:
    driver = Driver(recogniser(SILENT), lambda wanted: settled(wanted.audio.window, []))
    driver.push(audio((1.0, 1)))
    driver.finalize()
    assert kinds(driver) == ["SpeechStarted", "Final", "Flushed"]
    assert driver.finals[0].text == ""


def test_flushed_waits_for_every_final_before_it() -> None:
    heard_of = recogniser(SILENT)
    heard_of.push(audio((1.0, 1)))
    (wish,) = heard_of.finalize()
    assert heard_of.finalize() == []
    final, first, second = heard_of.decoded(wish.id, answer(wish))
    assert isinstance(final, Final)
    assert first == second == Flushed(1.0)


@pytest.mark.parametrize("spoken_s", [0.25, 0.4, 1.0, 2.77])
def test_what_was_said_up_to_the_close_is_in_a_final(spoken_s: float) -> None:
    samples = audio((0.5, 0), (spoken_s, 1))
    driver = run(samples, SILENT)
    assert kinds(driver) == ["SpeechStarted", "Final", "Closed"]
    assert driver.finals[0].end >= len(samples) / SAMPLE_RATE_HZ


def test_to_close_twice_tells_it_once() -> None:
    driver = run(audio((1.0, 1)), SILENT)
    assert driver.recogniser.close() == []
    assert kinds(driver)[-1] == "Closed"


def test_no_window_is_shorter_than_what_engines_take() -> None:
    driver = Driver(recogniser(SILENT))
    driver.push(audio((1.0, 1)))
    driver.finalize()
    driver.push(audio((0.01, 1)))
    driver.close()
    assert [len(w.audio.samples) >= 1_600 for w in driver.wishes] == [True, True]


# -- the end of what somebody had to say


def test_utterance_end_is_told_once_after_the_last_word() -> None:
    driver = run(audio((1.0, 1), (3.0, 0)), replace(SILENT, utterance_end_ms=1000))
    assert kinds(driver) == ["SpeechStarted", "Final", "UtteranceEnd", "Closed"]
    assert driver.of(UtteranceEnd) == [UtteranceEnd(0, pytest.approx(1.0, abs=0.01))]


def test_utterance_end_is_not_told_where_speech_begins_again_before() -> None:
    samples = audio((1.0, 1), (0.7, 0), (1.0, 1), (3.0, 0))
    driver = run(samples, replace(SILENT, utterance_end_ms=1000))
    assert kinds(driver) == ["SpeechStarted", "Final", "SpeechStarted", "Final", "UtteranceEnd", "Closed"]


def test_utterance_end_stands_where_it_belongs_however_late_the_finals_come() -> None:
    driver = recogniser(replace(SILENT, utterance_end_ms=1000))
    told = driver.push(audio((1.0, 1), (2.0, 0), (1.0, 1), (0.7, 0), (1.0, 1), (2.0, 0))) + driver.close()
    dropped = {output.id for output in told if isinstance(output, DecodeDropped)}
    wishes = [output for output in told if isinstance(output, DecodeWanted) and output.id not in dropped]
    late = [event for wish in wishes for event in driver.decoded(wish.id, answer(wish))]
    names = [type(event).__name__ for event in (*told, *late)]
    assert [name for name in names if name in ("Final", "UtteranceEnd", "Closed")] == [
        "Final",
        "UtteranceEnd",
        "Final",
        "Final",
        "UtteranceEnd",
        "Closed",
    ]


def test_without_endpointing_the_wait_for_the_utterance_end_ends_the_utterance() -> None:
    driver = run(audio((1.0, 1), (3.0, 0)), replace(SILENT, endpointing_ms=None, utterance_end_ms=1000))
    assert kinds(driver) == ["SpeechStarted", "Final", "UtteranceEnd", "Closed"]


# -- interims


def test_interims_grow_and_their_stable_words_stay() -> None:
    driver = run(audio((3.0, 1), (1.0, 0)), StreamOptions())
    assert [(interim.text, interim.stable) for interim in driver.interims][:3] == [
        ("w0 w1", 0),
        ("w0 w1 w2 w3", 1),
        ("w0 w1 w2 w3 w4 w5 w6", 3),
    ]
    assert {interim.utterance for interim in driver.interims} == {0}
    assert all(word.estimated for interim in driver.interims for word in interim.words)


def test_stable_words_stand_in_the_final_that_heard_them_otherwise() -> None:
    def wavering(wanted: DecodeWanted) -> DecodeResult:
        if wanted.purpose == "interim":
            return heard("I scream for a while now")
        words = [
            Word(text, i * 0.2, i * 0.2 + 0.2) for i, text in enumerate(["ice", "cream", "for", "a", "pal"])
        ]
        return settled(wanted.audio.window, words)

    driver = run(audio((1.2, 1), (1.0, 0)), StreamOptions(), wavering)
    assert driver.interims[-1].stable == 5
    assert driver.finals[0].text == "I scream for a while"


def test_early_words_are_not_certain_while_what_follows_them_changes() -> None:
    def wavering(wanted: DecodeWanted) -> DecodeResult:
        if wanted.purpose == "interim":
            return heard(f"it is w{len(wanted.audio.samples)}")
        return answer(wanted)

    driver = run(audio((4.0, 1), (1.0, 0)), StreamOptions(), wavering)
    assert {interim.stable for interim in driver.interims if interim.end < 2.5} == {0}
    assert driver.interims[-1].stable == 1


def test_only_one_interim_is_decoded_at_a_time_and_the_newest_is_next() -> None:
    heard_of = recogniser(StreamOptions())
    out = [o for _ in range(20) for o in heard_of.push(audio((0.1, 1)))]
    (first,) = (o for o in out if isinstance(o, DecodeWanted))
    (second,) = heard_of.decoded(first.id, None)
    assert isinstance(second, DecodeWanted)
    assert second.audio.window.end >= 1.9 * SAMPLE_RATE_HZ


def test_an_interim_that_is_still_being_decoded_is_dropped_at_the_endpoint() -> None:
    heard_of = recogniser(StreamOptions())
    out = [o for _ in range(5) for o in heard_of.push(audio((0.1, 1)))]
    (interim,) = (o for o in out if isinstance(o, DecodeWanted))
    out = heard_of.push(audio((0.5, 0)))
    assert DecodeDropped(interim.id) in out


def test_interims_of_the_next_utterance_wait_for_the_final_before() -> None:
    heard_of = recogniser(StreamOptions(endpointing_ms=100))
    out = heard_of.push(audio((0.25, 1), (0.3, 0)))
    (final,) = (o for o in out if isinstance(o, DecodeWanted))
    out = [o for _ in range(6) for o in heard_of.push(audio((0.1, 1)))]
    (interim,) = (o for o in out if isinstance(o, DecodeWanted))
    assert heard_of.decoded(interim.id, answer(interim)) == []
    told = heard_of.decoded(final.id, answer(final))
    assert [(type(e), e.utterance) for e in told if isinstance(e, Final | Interim)] == [
        (Final, 0),
        (Interim, 1),
    ]


def test_loops_and_inventions_are_in_no_interim() -> None:
    driver = run(
        audio((1.2, 1), (1.0, 0)),
        StreamOptions(),
        lambda wanted: heard("la " * 60) if wanted.purpose == "interim" else answer(wanted),
    )
    assert {interim.text for interim in driver.interims[:-1]} == {"la"}


# -- options that change


def test_what_an_engine_is_asked_changes_with_the_next_utterance() -> None:
    rich = replace(GREEDY, languages=frozenset({"en", "de"}))
    driver = Driver(recogniser(StreamOptions(language="en", interim=False), rich))
    driver.push(audio((0.5, 1)))
    driver.take(driver.recogniser.configure(StreamOptions(language="de", interim=False)))
    driver.push(audio((0.5, 1), (1.0, 0), (0.5, 1), (1.0, 0)))
    assert [wish.plan.decode.language for wish in driver.wishes] == ["en", "de"]
    assert [f.language.code for f in driver.finals if f.language] == ["en", "de"]


def test_endpointing_changes_at_once() -> None:
    driver = Driver(recogniser(replace(SILENT, endpointing_ms=5_000)))
    driver.push(audio((0.5, 1), (0.2, 0)))
    driver.take(driver.recogniser.configure(replace(SILENT, endpointing_ms=100)))
    driver.push(audio((0.1, 0)))
    assert driver.text == "w0 w1 w2"


def test_options_the_model_cannot_do_change_nothing() -> None:
    heard_of = recogniser(SILENT)
    with pytest.raises(UnsupportedOption):
        heard_of.configure(StreamOptions(language="xx", endpointing_ms=10))
    assert [o for o in heard_of.push(audio((1.0, 1), (0.1, 0))) if isinstance(o, DecodeWanted)] == []


# -- with what stands around it


def test_finals_are_settled_like_the_windows_of_a_file() -> None:
    batcher = Batcher(FakeEngine(says("so it goes"), capabilities=GREEDY))
    ticket = batcher.open()
    try:
        driver = run(
            audio((1.0, 1), (1.0, 0)),
            SILENT,
            lambda wanted: settle_wish(
                wanted, ticket.submit(wanted.audio.samples, wanted.plan.decode).result(), ticket, None
            ),
        )
    finally:
        ticket.close()
        batcher.close(grace_s=0)
    assert driver.text == "so it goes"
    assert driver.recogniser.account.coverage().transcribed_s == pytest.approx(1.024)
    assert [len(f.words) for f in driver.finals] == [3]


def test_the_document_of_a_stream_holds_its_finals() -> None:
    driver = run(audio((1.0, 1), (1.0, 0), (1.0, 1)), SILENT)
    document = StreamDocument(ModelRef("fake", "1"))
    for final in driver.finals:
        document.add(final)
    transcript = document.transcript([driver.recogniser])
    assert transcript.text == driver.text
    assert [segment.id for segment in transcript.segments] == [0, 1]
    assert transcript.duration == 3.0
    assert transcript.coverage.speech_s == transcript.coverage.transcribed_s == pytest.approx(2.0, abs=0.05)
    assert {segment.channel for segment in transcript.segments} == {None}
    assert transcript.language is not None
    assert transcript.language.code == "en"


def test_the_document_of_silence_says_so() -> None:
    driver = run(audio((1.0, 0)), SILENT)
    transcript = StreamDocument(ModelRef("fake", "1")).transcript([driver.recogniser])
    assert transcript.text == ""
    assert [w.code for w in transcript.warnings if w.code != "words_estimated"] == ["no_speech"]


def test_a_long_stream_keeps_no_more_audio_than_what_is_open() -> None:
    heard_of = recogniser(SILENT)
    turn = audio((3.0, 1), (2.0, 0))
    tracemalloc.start()
    try:
        for _ in range(120):  # ten minutes
            for o in heard_of.push(turn):
                if isinstance(o, DecodeWanted):
                    heard_of.decoded(o.id, settled(o.audio.window, words_in(o.audio.window)[:1]))
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2_000_000
    assert most < 6_000_000
