"""Events of a stream as OpenAI's server events: golden sequences, and what holds for every sequence."""

import itertools
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.api.openai_compat.realtime_turns import CommitEmpty, Turns
from voiceforge.speech.transcript import Language, Segment, Word
from voiceforge.speech.transcript.stream_events import (
    Final,
    Flushed,
    Interim,
    SpeechEnded,
    SpeechStarted,
    UtteranceEnd,
)

DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
FAILED = "conversation.item.input_audio_transcription.failed"
STARTED = "input_audio_buffer.speech_started"
STOPPED = "input_audio_buffer.speech_stopped"
COMMITTED = "input_audio_buffer.committed"
CLEARED = "input_audio_buffer.cleared"
ADDED = "conversation.item.added"
DONE = "conversation.item.done"


def turns(*, detecting: bool = True, dialect: str = "ga", logprobs: bool = False) -> Turns:
    numbers = itertools.count(1)
    made = Turns(lambda kind: f"{kind}_{next(numbers)}")
    made.detecting, made.dialect, made.logprobs = detecting, dialect, logprobs
    return made


def interim(text, stable, *, start=0.5, end=1.0, utterance=0):
    words = tuple(Word(word, start, end) for word in text.split())
    return Interim(0, utterance, start, end, text, words, stable)


def final(text, *, start=0.5, end=1.5, utterance=0, reason="silence", confidence=None):
    words = tuple(Word(word, start, end, confidence) for word in text.split())
    segments = (Segment(0, start, end, text, words=words),) if text else ()
    return Final(0, utterance, start, end, text, segments, reason, Language("en", 1.0))


def shown(events):
    """Each event as its type and what tells it from others of it."""
    kept = ("delta", "transcript", "item_id")
    return [(event["type"], *(event[name] for name in kept if name in event)) for event in events]


def heard(made, *events):
    return [told for event in events for told in made.heard(event)]


def test_a_turn_that_a_silence_ends():
    made = turns()
    told = heard(
        made,
        SpeechStarted(0, 0.5),
        interim("Ever", 0),
        interim("Ever tried", 1),
        final("Ever tried."),
        UtteranceEnd(0, 1.5),
    )
    assert told == [
        {"type": STARTED, "audio_start_ms": 500, "item_id": "item_1"},
        {"type": DELTA, "item_id": "item_1", "content_index": 0, "delta": "Ever"},
        {"type": STOPPED, "audio_end_ms": 1500, "item_id": "item_1"},
        {"type": COMMITTED, "item_id": "item_1", "previous_item_id": None},
        {
            "type": ADDED,
            "previous_item_id": None,
            "item": {
                "id": "item_1",
                "object": "realtime.item",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_audio", "transcript": None}],
            },
        },
        {"type": DELTA, "item_id": "item_1", "content_index": 0, "delta": " tried."},
        {
            "type": COMPLETED,
            "item_id": "item_1",
            "content_index": 0,
            "transcript": "Ever tried.",
            "usage": {"type": "duration", "seconds": 1.0},
            "languages": [{"code": "en"}],
        },
        {
            "type": DONE,
            "previous_item_id": None,
            "item": {
                "id": "item_1",
                "object": "realtime.item",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_audio", "transcript": "Ever tried."}],
            },
        },
    ]
    second = heard(made, SpeechStarted(0, 2.0), final("Ever failed.", start=2.0, end=3.0, utterance=1))
    assert [event["previous_item_id"] for event in second if "previous_item_id" in event] == ["item_1"] * 3


def test_the_beta_has_its_own_names_and_fewer_events():
    made = turns(dialect="beta")
    told = heard(made, SpeechStarted(0, 0.5), final("Ever tried."))
    assert [event["type"] for event in told] == [
        STARTED,
        STOPPED,
        COMMITTED,
        "conversation.item.created",
        DELTA,
        COMPLETED,
    ]
    assert "languages" not in told[-1]


def test_speech_cut_because_it_grew_long_is_one_turn():
    made = turns()
    told = heard(
        made,
        SpeechStarted(0, 0.5),
        final("It was the best of times,", end=30.0, reason="max_length"),
        interim("it was the", 2, start=30.0, end=31.0, utterance=1),
        final("it was the worst of times.", start=30.0, end=33.0, utterance=1),
    )
    assert shown(told) == [
        (STARTED, "item_1"),
        (DELTA, "It was the best of times,", "item_1"),
        (DELTA, " it was", "item_1"),
        (STOPPED, "item_1"),
        (COMMITTED, "item_1"),
        (ADDED,),
        (DELTA, " the worst of times.", "item_1"),
        (COMPLETED, "It was the best of times, it was the worst of times.", "item_1"),
        (DONE,),
    ]
    assert told[-2]["usage"]["seconds"] == 32.5


def test_what_is_said_next_is_noticed_before_the_last_final_is_there():
    made = turns()
    told = heard(
        made,
        SpeechStarted(0, 0.5),
        SpeechStarted(0, 2.0),
        SpeechStarted(0, 4.0),
        final("Ever tried.", end=1.5),
        final("Ever failed.", start=2.0, end=3.0, utterance=1),
    )
    starts = [event for event in told if event["type"] == STARTED]
    assert [(event["audio_start_ms"], event["item_id"]) for event in starts] == [
        (500, "item_1"),
        (2000, "item_2"),
        (4000, "item_3"),
    ]
    assert [event["type"] for event in told][-1] == STARTED
    done = [event for event in told if event["type"] == COMPLETED]
    assert [event["usage"]["seconds"] for event in done] == [1.0, 1.0]


def test_a_start_without_words_begins_the_turn_of_the_next():
    made = turns()
    told = heard(made, SpeechStarted(0, 0.5), SpeechStarted(0, 5.0), final("Ever.", start=5.0, end=6.0))
    assert [event["type"] for event in told].count(STARTED) == 1
    [completed] = [event for event in told if event["type"] == COMPLETED]
    assert completed["usage"]["seconds"] == 1.0


def test_speech_without_words_ends_in_an_item_without_words():
    made = turns()
    told = heard(made, SpeechStarted(0, 0.5), SpeechStarted(0, 2.0), SpeechEnded(0, 0.5, 1.2))
    assert shown(told) == [
        (STARTED, "item_1"),
        (STOPPED, "item_1"),
        (COMMITTED, "item_1"),
        (ADDED,),
        (COMPLETED, "", "item_1"),
        (DONE,),
        (STARTED, "item_2"),
    ]
    assert told[1]["audio_end_ms"] == 1200
    assert told[4]["usage"]["seconds"] == 0.7


def test_an_end_without_words_of_what_was_never_told_to_start_says_nothing():
    made = turns()
    assert heard(made, SpeechEnded(0, 0.5, 1.2)) == []
    assert heard(turns(detecting=False), SpeechStarted(0, 0.5), SpeechEnded(0, 0.5, 1.2)) == []


def test_commits_end_turns_where_no_silence_does():
    made = turns(detecting=False)
    assert heard(made, SpeechStarted(0, 0.5)) == []
    assert shown(heard(made, interim("Ever tried", 1))) == [(DELTA, "Ever", "item_1")]
    assert shown(made.commit(2.0)) == [(COMMITTED, "item_1"), (ADDED,)]
    told = heard(made, interim("Fail", 1, start=2.1, utterance=1), final("Ever tried.", reason="finalize"))
    assert shown(told) == [(DELTA, " tried.", "item_1")]
    told = heard(made, Flushed(2.0))
    assert shown(told) == [(COMPLETED, "Ever tried.", "item_1"), (DONE,)]
    assert told[0]["usage"]["seconds"] == 2.0
    assert shown(heard(made, interim("Fail", 1, start=2.1, utterance=1))) == [(DELTA, "Fail", "item_2")]


def test_a_commit_in_the_middle_of_detected_speech():
    made = turns()
    heard(made, SpeechStarted(0, 0.5))
    assert shown(made.commit(2.0)) == [(COMMITTED, "item_1"), (ADDED,)]
    # The silence that came by itself at the same time ends nothing more.
    told = heard(made, final("Ever tried.", reason="silence"), Flushed(2.0))
    assert shown(told) == [
        (DELTA, "Ever tried.", "item_1"),
        (COMPLETED, "Ever tried.", "item_1"),
        (DONE,),
    ]
    told = heard(made, SpeechStarted(0, 2.2), final("Ever failed.", start=2.2, end=3.0, utterance=1))
    assert {event["item_id"] for event in told if "item_id" in event} == {"item_2"}


def test_speech_that_goes_on_over_a_commit_is_told_to_start_again():
    made = turns()
    heard(made, SpeechStarted(0, 0.5))
    made.commit(2.0)
    heard(made, final("Ever tried.", end=2.0, reason="finalize"), Flushed(2.0))
    told = heard(made, interim("Ever failed", 1, start=2.0, end=3.0, utterance=1))
    assert shown(told) == [(STARTED, "item_2"), (DELTA, "Ever", "item_2")]


def test_a_commit_of_silence_is_an_item_without_words():
    made = turns(detecting=False)
    made.commit(1.0)
    told = heard(made, Flushed(1.0))
    assert shown(told) == [(COMPLETED, "", "item_1"), (DONE,)]


@pytest.mark.parametrize("at", [0.0, 0.05, 0.0999])
def test_an_empty_commit(at):
    made = turns(detecting=False)
    with pytest.raises(CommitEmpty) as caught:
        made.commit(at)
    assert caught.value.code == "input_audio_buffer_commit_empty"
    made.commit(0.1)
    with pytest.raises(CommitEmpty):
        made.commit(0.1 + at)


def test_what_is_cleared_is_never_an_item():
    made = turns()
    heard(made, SpeechStarted(0, 0.5))
    assert shown(made.clear(1.6)) == [(CLEARED,)]
    assert heard(made, final("Ever tried.", reason="finalize"), Flushed(1.6)) == []
    told = heard(made, SpeechStarted(0, 2.0), final("Ever failed.", start=2.0, end=3.0, utterance=1))
    assert {event["item_id"] for event in told if "item_id" in event} == {"item_2"}
    assert told[2]["previous_item_id"] is None


def test_the_end_completes_what_has_words():
    made = turns(detecting=False)
    heard(made, final("Ever tried.", reason="close"))
    assert shown(made.finish()) == [
        (COMMITTED, "item_1"),
        (ADDED,),
        (COMPLETED, "Ever tried.", "item_1"),
        (DONE,),
    ]
    assert turns().finish() == []


def test_a_fault_fails_the_items_a_client_waits_for():
    made = turns()
    made.commit(1.0)
    made.clear(2.0)
    heard(made, SpeechStarted(0, 2.1))
    error = {"type": "server_error", "code": "engine_failed", "message": "it broke", "param": None}
    told = made.failed(error)
    assert [(event["type"], event["item_id"], event["error"]) for event in told] == [
        (FAILED, "item_1", error),
        (FAILED, "item_3", error),
    ]
    assert made.failed(error) == []


def test_log_probabilities_only_where_the_engine_has_them():
    made = turns(logprobs=True)
    [told] = [
        event for event in heard(made, final("Ever tried.", confidence=0.5)) if event["type"] == COMPLETED
    ]
    assert [(one["token"], one["logprob"]) for one in told["logprobs"]] == [
        ("Ever", -0.6931),
        (" tried.", -0.6931),
    ]
    assert bytes(told["logprobs"][1]["bytes"]) == b" tried."
    [told] = [event for event in heard(made, final("Ever.", start=3, end=4)) if event["type"] == COMPLETED]
    assert "logprobs" not in told
    unasked = heard(turns(), final("Ever.", confidence=0.5))
    assert not any("logprobs" in event for event in unasked)


@dataclass
class Session:
    """A recogniser that keeps the rules, beside a client that does as it likes."""

    detecting: bool
    made: Turns = field(init=False)
    told: list = field(default_factory=list)
    said: list = field(default_factory=list)
    flushes: list = field(default_factory=list)
    now: float = 0.0
    utterance: int = 0
    speaking_from: float | None = None
    started_told: bool = False

    def __post_init__(self):
        self.made = turns(detecting=self.detecting)

    def hear(self, event):
        self.told += self.made.heard(event)

    def speak(self, words):
        if self.speaking_from is None:
            self.speaking_from = self.now
            self.hear(SpeechStarted(0, self.now))
        self.now += 0.3 * words
        self.said_now = " ".join(f"w{self.utterance}_{i}" for i in range(words))
        for stable in range(words):
            self.hear(
                interim(
                    self.said_now, stable, start=self.speaking_from, end=self.now, utterance=self.utterance
                )
            )

    def end(self, reason):
        if self.speaking_from is None:
            return
        self.hear(
            final(
                self.said_now,
                start=self.speaking_from,
                end=self.now,
                utterance=self.utterance,
                reason=reason,
            )
        )
        self.said += self.said_now.split()
        self.utterance += 1
        self.speaking_from = self.now if reason == "max_length" else None
        self.said_now = ""

    def do(self, step):
        action, size = step
        match action:
            case "speak":
                if self.speaking_from is None or not self.said_now:
                    self.speak(size)
            case "hum":
                if self.speaking_from is None:
                    self.hear(SpeechStarted(0, self.now))
                    self.hear(SpeechEnded(0, self.now, self.now + 0.3))
                    self.now += 0.9
            case "pause":
                self.end("silence")
                self.now += 0.6
            case "long":
                if self.speaking_from is not None and self.said_now:
                    self.end("max_length")
            case "commit":
                try:
                    self.told += self.made.commit(self.now)
                except CommitEmpty:
                    return
                self.end("finalize")
                self.hear(Flushed(self.now))
            case "clear":
                self.told += self.made.clear(self.now)
                self.end("finalize")
                self.hear(Flushed(self.now))

    said_now: str = ""


steps = st.lists(
    st.tuples(
        st.sampled_from(["speak", "speak", "hum", "pause", "long", "commit", "clear"]), st.integers(1, 4)
    ),
    max_size=25,
)


@given(st.booleans(), steps)
def test_trap_12_deltas_together_are_the_transcript_and_every_item_runs_its_course(detecting, script):
    session = Session(detecting)
    for step in script:
        session.do(step)
    session.end("close")
    session.told += session.made.finish()

    by_item = defaultdict(list)
    for event in session.told:
        item = event.get("item_id") or event.get("item", {}).get("id")
        if item is not None:
            by_item[item].append(event)
    before = None
    for events in by_item.values():
        kinds = [event["type"] for event in events if event["type"] != DELTA]
        text = "".join(event["delta"] for event in events if event["type"] == DELTA)
        if COMMITTED not in kinds:  # it was cleared
            assert set(kinds) <= {STARTED}
            continue
        assert kinds in (
            [STARTED, STOPPED, COMMITTED, ADDED, COMPLETED, DONE],
            [STARTED, COMMITTED, ADDED, COMPLETED, DONE],
            [COMMITTED, ADDED, COMPLETED, DONE],
        )
        [completed] = [event for event in events if event["type"] == COMPLETED]
        assert completed["transcript"] == text
        assert completed["usage"]["seconds"] >= 0
        [committed] = [event for event in events if event["type"] == COMMITTED]
        assert committed["previous_item_id"] == before
        before = committed["item_id"]
    if not any(action == "clear" for action, _ in script):
        transcripts = [event["transcript"] for event in session.told if event["type"] == COMPLETED]
        assert " ".join(transcripts).split() == session.said
