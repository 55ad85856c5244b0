from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.errors import UnsupportedOption
from voiceforge.speech.engines.base import Capabilities, DecodeOptions
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.plan import make_plan

BARE = Capabilities(languages=frozenset({"en"}), longest_window_s=30.0, best_window_s=12.0)
RICH = Capabilities(
    languages=frozenset({"de", "en", "fr"}),
    longest_window_s=30.0,
    best_window_s=28.0,
    tasks=frozenset({"transcribe", "translate"}),
    segment_times=True,
    word_times=True,
    detects_language=True,
    prompt=True,
    max_keyterms=3,
    temperature=True,
    beam=True,
)
NOBODY: frozenset[str] = frozenset()


def test_a_language_the_model_does_not_know_is_refused_with_those_it_knows() -> None:
    with pytest.raises(UnsupportedOption) as refused:
        make_plan(TranscribeOptions(language="xx"), RICH, NOBODY)
    assert (refused.value.field, refused.value.choices) == ("language", ("de", "en", "fr"))


def test_a_task_the_model_cannot_do_is_refused() -> None:
    with pytest.raises(UnsupportedOption) as refused:
        make_plan(TranscribeOptions(task="translate"), BARE, NOBODY)
    assert (refused.value.field, refused.value.choices) == ("task", ("transcribe",))
    assert make_plan(TranscribeOptions(task="translate"), RICH, NOBODY).decode.task == "translate"


def test_more_keyterms_than_the_model_takes_are_refused() -> None:
    terms = ("a", "b", "c", "d")
    assert make_plan(TranscribeOptions(keyterms=terms[:3]), RICH, NOBODY).decode.keyterms == terms[:3]
    with pytest.raises(UnsupportedOption) as refused:
        make_plan(TranscribeOptions(keyterms=terms), RICH, NOBODY)
    assert refused.value.field == "keyterm"


def test_what_the_model_can_do_reaches_it_without_a_warning() -> None:
    wishes = TranscribeOptions(
        language="fr", prompt="Context", keyterms=("Godot",), temperature=0.2, beam_size=4, words=True
    )
    plan = make_plan(wishes, RICH, NOBODY)
    assert plan.warnings == ()
    assert plan.decode == DecodeOptions(
        language="fr", prompt="Context", keyterms=("Godot",), temperature=0.2, beam_size=4, words=True
    )


@pytest.mark.parametrize(
    ("wish", "named"),
    [
        (TranscribeOptions(prompt="Context"), "prompt"),
        (TranscribeOptions(keyterms=("Godot",)), "keyterm"),
        (TranscribeOptions(temperature=0.2), "temperature"),
        (TranscribeOptions(beam_size=4), "beam_size"),
    ],
)
def test_what_the_model_has_not_is_left_out_and_listed(wish: TranscribeOptions, named: str) -> None:
    plan = make_plan(wish, BARE, NOBODY)
    (warning,) = plan.warnings
    assert warning.code == "option_ignored"
    assert named in warning.message
    assert plan.decode == DecodeOptions(language="en")


def test_each_ignored_option_has_a_warning_of_its_own() -> None:
    wishes = TranscribeOptions(prompt="Context", keyterms=("Godot",), temperature=0.2, beam_size=4)
    assert len(make_plan(wishes, BARE, NOBODY).warnings) == 4


def test_asking_a_greedy_model_for_greedy_decoding_is_not_ignored() -> None:
    assert make_plan(TranscribeOptions(temperature=0.0, beam_size=1), BARE, NOBODY).warnings == ()


def test_the_only_language_is_given_and_of_several_none() -> None:
    assert make_plan(TranscribeOptions(), BARE, NOBODY).decode.language == "en"
    assert make_plan(TranscribeOptions(), RICH, NOBODY).decode.language is None


@pytest.mark.parametrize(
    ("words", "capabilities", "aligned", "language", "source"),
    [
        (False, RICH, {"en"}, "en", "none"),
        (True, RICH, {"en"}, "en", "engine"),
        (True, replace(RICH, word_times=False), {"en"}, "en", "aligner"),
        (True, replace(RICH, word_times=False), {"en"}, "de", "estimate"),
        (True, replace(RICH, word_times=False), {"en"}, None, "estimate"),
        (True, BARE, {"en"}, None, "aligner"),
        (True, BARE, set(), "en", "estimate"),
    ],
)
def test_who_supplies_the_word_times(
    words: bool, capabilities: Capabilities, aligned: set[str], language: str | None, source: str
) -> None:
    plan = make_plan(TranscribeOptions(words=words, language=language), capabilities, aligned)
    assert plan.word_times == source
    assert plan.decode.words == (source == "engine")


@given(
    wishes=st.builds(
        TranscribeOptions,
        prompt=st.none() | st.just("p"),
        keyterms=st.sampled_from([(), ("k",)]),
        temperature=st.sampled_from([None, 0.0, 0.5]),
        beam_size=st.sampled_from([None, 1, 5]),
        words=st.booleans(),
    ),
    capabilities=st.builds(
        Capabilities,
        languages=st.sampled_from([frozenset({"en"}), frozenset({"en", "de"})]),
        longest_window_s=st.just(30.0),
        best_window_s=st.just(12.0),
        word_times=st.booleans(),
        prompt=st.booleans(),
        max_keyterms=st.sampled_from([0, 5]),
        temperature=st.booleans(),
        beam=st.booleans(),
    ),
)
def test_no_wish_is_dropped_in_silence_and_no_engine_asked_for_what_it_has_not(
    wishes: TranscribeOptions, capabilities: Capabilities
) -> None:
    plan = make_plan(wishes, capabilities, NOBODY)
    asked, listed = plan.decode, " ".join(w.message for w in plan.warnings)
    assert asked.prompt is None or capabilities.prompt
    assert not asked.keyterms or capabilities.max_keyterms
    assert asked.temperature is None or capabilities.temperature
    assert asked.beam_size is None or capabilities.beam
    assert not asked.words or capabilities.word_times
    assert asked.prompt == wishes.prompt or "prompt" in listed
    assert asked.keyterms == wishes.keyterms or "keyterm" in listed
    assert asked.temperature == wishes.temperature or not wishes.temperature or "temperature" in listed
    assert asked.beam_size == wishes.beam_size or wishes.beam_size == 1 or "beam_size" in listed
