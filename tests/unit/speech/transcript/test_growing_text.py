from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.transcript.growing_text import GrowingText
from voiceforge.speech.transcript.stream_events import EndpointReason, Final, Interim
from voiceforge.speech.transcript.types import Word


def interim(text: str, stable: int, utterance: int = 0) -> Interim:
    words = tuple(Word(word, 0.0, 1.0) for word in text.split())
    return Interim(0, utterance, 0.0, 1.0, text, words, stable)


def final(text: str, utterance: int = 0, reason: EndpointReason = "silence") -> Final:
    return Final(0, utterance, 0.0, 1.0, text, (), reason, None)


def test_only_what_is_certain_is_given_out():
    text = GrowingText()
    assert text.heard(interim("Ever", 0)) == ""
    assert text.heard(interim("Ever tried Eva", 1)) == "Ever"
    assert text.heard(interim("Ever tried, ever", 2)) == " tried,"
    assert text.heard(interim("Ever tried, ever", 2)) == ""
    assert text.settled(final("Ever tried, ever failed.")) == " ever failed."
    assert text.text == "Ever tried, ever failed."


def test_finals_of_one_turn_are_joined():
    text = GrowingText()
    assert text.settled(final("")) == ""
    assert text.settled(final("One.")) == "One."
    assert text.settled(final("")) == ""
    assert text.heard(interim("Two three", 1, 1)) == " Two"
    assert text.settled(final("Two three.", 1)) == " three."
    assert text.text == "One. Two three."


def test_a_recogniser_that_breaks_its_word_does_not_break_ours():
    text = GrowingText()
    shown = text.heard(interim("no mutter", 2))
    assert text.settled(final("No matter. Try again.")) == " Try again."
    assert text.heard(interim("fail", 1, 1)) == " fail"
    assert text.settled(final("", 1)) == ""
    assert (shown, text.text) == ("no mutter", "no mutter Try again. fail")


def test_certain_words_behind_a_cut_are_not_given_out_twice():
    text = GrowingText()
    assert text.heard(interim("it was the age of", 5)) == "it was the age of"
    assert text.settled(final("it was", reason="max_length")) == ""
    assert text.heard(interim("the age of wisdom", 4, 1)) == " wisdom"
    assert text.settled(final("the age of wisdom, it", 1, "max_length")) == ", it"
    assert text.settled(final("was", 2)) == " was"
    assert text.text == "it was the age of wisdom, it was"


def test_a_cut_final_may_say_more_than_what_was_certain_before_the_cut():
    text = GrowingText()
    text.heard(interim("one two three", 3))
    assert text.settled(final("one too", reason="max_length")) == " too"
    assert text.settled(final("two three four", 1)) == " four"
    assert text.text == "one two three too four"


def test_cuts_in_languages_without_spaces():
    text = GrowingText()
    words = (Word("今日", 0, 1), Word("は", 1, 2))
    text.heard(Interim(0, 0, 0.0, 2.0, "今日は", words, 2))
    assert text.settled(final("今日", reason="max_length")) == ""
    assert text.settled(final("は晴れ", 1)) == "晴れ"
    assert text.text == "今日は晴れ"


def test_languages_without_spaces_between_words():
    text = GrowingText()
    words = (Word("今日", 0, 1), Word("は", 1, 2))
    assert text.heard(Interim(0, 0, 0.0, 2.0, "今日は", words, 1)) == "今日"
    assert text.settled(final("今日は。")) == "は。"


words = st.lists(st.sampled_from(["a", "b", "ab", "b.", "日"]), max_size=4).map(" ".join)
told = st.one_of(
    st.builds(lambda text, stable: interim(text, stable), words, st.integers(0, 5)),
    st.builds(lambda text, cut: final(text, 0, "max_length" if cut else "silence"), words, st.booleans()),
)


@given(st.lists(told, max_size=12))
def test_the_pieces_are_the_text_whatever_comes(events):
    text, pieces = GrowingText(), ""
    for event in events:
        pieces += text.heard(event) if isinstance(event, Interim) else text.settled(event)
        assert pieces == text.text
