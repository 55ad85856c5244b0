"""What a live stream tells, in Deepgram's words; and what clients say besides audio."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.api.deepgram_compat.live_convert import LiveMessages, Session
from voiceforge.api.deepgram_compat.live_messages import Configure, Misunderstood, Plain, read_message
from voiceforge.api.deepgram_compat.live_wishes import live_wish
from voiceforge.api.deepgram_compat.schemas import LiveQuery
from voiceforge.speech.options import StreamOptions
from voiceforge.speech.transcript import Language, ModelRef, Segment, Word
from voiceforge.speech.transcript.stream_events import (
    Closed,
    EndpointReason,
    Final,
    Flushed,
    Interim,
    Revision,
    SpeechEnded,
    SpeechStarted,
    StreamEvent,
    UtteranceEnd,
)

SESSION = Session("req", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), ModelRef("fake", "1"), "fake")


def messages_for(**query) -> LiveMessages:
    return LiveMessages(live_wish(LiveQuery.model_validate(query), StreamOptions()), SESSION)


def told(messages: LiveMessages, *events: StreamEvent, channels: int = 1):
    return [message for event in events for message in messages.of(event, channels)]


def words(*texts: str, start: float = 0.0, confidence: float | None = 0.9) -> tuple[Word, ...]:
    return tuple(Word(text, start + n / 2, start + (n + 1) / 2, confidence) for n, text in enumerate(texts))


def final(
    *texts: str, reason: EndpointReason = "silence", start: float = 0.0, end: float = 2.0, channel: int = 0
) -> Final:
    said = words(*texts, start=start)
    segments = (Segment(0, start, end, " ".join(texts), words=said),) if said else ()
    return Final(channel, 0, start, end, " ".join(texts), segments, reason, Language("en", 1.0))


def interim(*texts: str, end: float = 1.0) -> Interim:
    return Interim(0, 0, 0.0, end, " ".join(texts), words(*texts, confidence=None), 0)


def test_speech_without_words_is_over_for_who_was_told_that_it_started():
    assert told(messages_for(), SpeechEnded(0, 0.5, 1.2)) == []
    [message] = told(messages_for(vad_events=True), SpeechEnded(0, 0.5, 1.2))
    assert (message["type"], message["start"], message["duration"]) == ("Results", 0.5, pytest.approx(0.7))
    assert (message["is_final"], message["speech_final"], message["from_finalize"]) == (True, False, False)
    assert message["channel"]["alternatives"][0]["transcript"] == ""


def test_a_result_has_every_field_that_the_strictest_sdk_insists_on():
    [message] = told(messages_for(punctuate=True), final("Hello,", "you."))
    model = message["metadata"].pop("model_uuid")
    assert len(model) == 36
    assert message == {
        "type": "Results",
        "channel_index": [0, 1],
        "duration": 2.0,
        "start": 0.0,
        "is_final": True,
        "speech_final": True,
        "from_finalize": False,
        "channel": {
            "alternatives": [
                {
                    "transcript": "Hello, you.",
                    "confidence": 0.9,
                    "words": [
                        {
                            "word": "hello",
                            "start": 0.0,
                            "end": 0.5,
                            "confidence": 0.9,
                            "punctuated_word": "Hello,",
                        },
                        {
                            "word": "you",
                            "start": 0.5,
                            "end": 1.0,
                            "confidence": 0.9,
                            "punctuated_word": "you.",
                        },
                    ],
                }
            ]
        },
        "metadata": {"request_id": "req", "model_info": {"name": "fake", "version": "1", "arch": "fake"}},
    }


def test_interims_of_an_utterance_have_its_start_and_are_not_final():
    made = told(messages_for(), interim("Hello"), interim("Hello", "you", end=1.5), final("Hello", "you."))
    assert [one["start"] for one in made] == [0.0, 0.0, 0.0]
    assert [one["is_final"] for one in made] == [False, False, True]
    assert [one["channel"]["alternatives"][0]["transcript"] for one in made] == [
        "hello",
        "hello you",
        "hello you",
    ]
    assert all(isinstance(one["channel"]["alternatives"][0]["words"][0]["confidence"], float) for one in made)


@pytest.mark.parametrize(
    ("reason", "endpoint"),
    [("silence", True), ("max_length", False), ("finalize", False), ("close", False)],
)
def test_speech_is_final_only_at_an_endpoint(reason, endpoint):
    [message] = told(messages_for(), final("Hello.", reason=reason))
    assert message["speech_final"] == endpoint
    assert message["from_finalize"] == (reason == "finalize")


def test_speech_is_never_final_without_words():
    [message] = told(messages_for(), final())
    assert message["is_final"]
    assert not message["speech_final"]
    assert message["channel"]["alternatives"][0] == {"transcript": "", "confidence": 0.0, "words": []}


def test_finalize_is_answered_once_by_what_it_brought():
    made = told(messages_for(), final("Hello.", reason="finalize"), Flushed(3.0))
    assert [one["from_finalize"] for one in made] == [True]


def test_finalize_with_nothing_buffered_is_answered_all_the_same():
    messages = messages_for()
    first = told(messages, final("Hello.", end=2.0), Flushed(3.0))
    assert [one["from_finalize"] for one in first] == [False, True]
    empty = first[1]
    assert (empty["is_final"], empty["speech_final"]) == (True, False)
    assert (empty["start"], empty["duration"]) == (2.0, 1.0)
    assert empty["channel"]["alternatives"][0]["transcript"] == ""
    again = told(messages, Flushed(3.0), final("On.", reason="finalize", start=3.0, end=4.0), Flushed(4.0))
    assert [one["from_finalize"] for one in again] == [True, True]


def test_speech_started_only_where_it_was_asked_for():
    event = SpeechStarted(1, 0.5)
    assert told(messages_for(), event) == []
    assert told(messages_for(vad_events=True), event, channels=2) == [
        {"type": "SpeechStarted", "channel": [1, 2], "timestamp": 0.5}
    ]


def test_the_end_of_an_utterance():
    assert told(messages_for(), UtteranceEnd(0, 1.2345)) == [
        {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.234}
    ]


def test_what_this_protocol_has_no_words_for_is_not_told():
    assert told(messages_for(), Revision(0, 0, 1, "x", ()), Closed(1.0)) == []


def test_channels_are_numbered():
    made = told(messages_for(), final("Left."), final("Right.", channel=1), channels=2)
    assert [one["channel_index"] for one in made] == [[0, 2], [1, 2]]


def test_languages_are_told_where_several_were_let_in():
    [message] = told(messages_for(language="multi"), final("Hello."))
    assert message["channel"]["alternatives"][0]["languages"] == ["en"]


def test_replacements():
    [message] = told(messages_for(replace=["you:everybody"]), final("Hello", "you."))
    assert message["channel"]["alternatives"][0]["transcript"] == "hello everybody"


def test_metadata_closes_the_stream():
    messages = messages_for(tag=["a"], extra=["k:v"], numerals=True)
    made = messages.metadata(sha256="ab", duration=1.23456, channels=2)
    [model] = made["models"]
    assert made["model_info"] == {model: {"name": "fake", "version": "1", "arch": "fake"}}
    assert (made["type"], made["transaction_key"], made["request_id"]) == ("Metadata", "deprecated", "req")
    assert (made["sha256"], made["duration"], made["channels"]) == ("ab", 1.235, 2)
    assert made["created"] == "2026-01-02T03:04:05.000Z"
    assert (made["tags"], made["extra"]) == (["a"], {"k": "v"})
    assert [warning["parameter"] for warning in made["warnings"]] == ["numerals"]


times = st.floats(0, 1e5, allow_nan=False)
texts = st.lists(st.text(max_size=8), max_size=4)
events = st.one_of(
    st.builds(lambda said, start: interim(*said, end=start), texts, times),
    st.builds(
        lambda said, start, reason: final(*said, start=start, end=start + 1, reason=reason),
        texts,
        times,
        st.sampled_from(["silence", "max_length", "finalize", "close"]),
    ),
    st.builds(Flushed, times),
    st.builds(SpeechStarted, st.just(0), times),
    st.builds(UtteranceEnd, st.just(0), times),
)


@given(st.lists(events, max_size=12))
def test_whatever_happens_every_message_is_whole(happened):
    messages = messages_for(vad_events=True, punctuate=True)
    finalizes = sum(isinstance(event, Flushed) for event in happened)
    made = json.loads(json.dumps(told(messages, *happened)))
    answered = [one for one in made if one.get("from_finalize")]
    assert len(answered) >= min(finalizes, 1)
    for one in made:
        if one["type"] == "Results":
            assert {"channel_index", "duration", "start", "is_final", "speech_final", "metadata"} <= set(one)
            assert one["duration"] >= 0
            [alternative] = one["channel"]["alternatives"]
            assert not one["speech_final"] or alternative["words"]
            assert all(word["word"] for word in alternative["words"])


@pytest.mark.parametrize("kind", ["KeepAlive", "Finalize", "CloseStream"])
def test_plain_messages(kind):
    assert read_message(f'{{"type": "{kind}", "more": 1}}') == Plain(kind)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"type": "Configure"}', Configure(None, {})),
        ('{"type": "Configure", "keyterms": null, "features": null}', Configure(None, {})),
        ('{"type": "Configure", "keyterms": []}', Configure((), {})),
        (
            '{"type": "Configure", "keyterms": [" a ", ""], "features": {"numerals": true}}',
            Configure(("a",), {"numerals": True}),
        ),
    ],
)
def test_configure(text, read):
    assert read_message(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "3",
        "{}",
        '{"type": "keepalive"}',
        '{"type": ["KeepAlive"]}',
        '{"type": "Configure", "keyterms": "a"}',
        '{"type": "Configure", "keyterms": [1]}',
        '{"type": "Configure", "features": {"numerals": "yes"}}',
        "[" * 100_000,
    ],
)
def test_what_is_not_understood_is_quoted(text):
    read = read_message(text)
    assert isinstance(read, Misunderstood)
    assert text.startswith(read.quoted)
    assert len(read.quoted) <= 500


@given(
    st.one_of(
        st.text(max_size=200),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=10)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(st.sampled_from(["type", "keyterms", "features", "x"]), inner, max_size=4),
            ),
            max_leaves=10,
        ).map(json.dumps),
    )
)
def test_any_text_is_read(text):
    assert isinstance(read_message(text), Plain | Configure | Misunderstood)
