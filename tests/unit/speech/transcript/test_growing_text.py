from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.transcript.growing_text import GrowingText
from voiceforge.speech.transcript.stream_events import Final, Interim
from voiceforge.speech.transcript.types import Word


def interim(text: str, stable: int, utterance: int = 0) -> Interim:
    words = tuple(Word(word, 0.0, 1.0) for word in text.split())
    return Interim(0, utterance, 0.0, 1.0, text, words, stable)


def final(text: str, utterance: int = 0) -> Final:
    return Final(0, utterance, 0.0, 1.0, text, (), "silence", None)


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


def test_languages_without_spaces_between_words():
    text = GrowingText()
    words = (Word("今日", 0, 1), Word("は", 1, 2))
    assert text.heard(Interim(0, 0, 0.0, 2.0, "今日は", words, 1)) == "今日"
    assert text.settled(final("今日は。")) == "は。"


words = st.lists(st.sampled_from(["a", "b", "ab", "b.", "日"]), max_size=4).map(" ".join)
told = st.one_of(
    st.builds(lambda text, stable: interim(text, stable), words, st.integers(0, 5)),
    st.builds(lambda text: final(text), words),
)


@given(st.lists(told, max_size=12))
def test_the_pieces_are_the_text_whatever_comes(events):
    text, pieces = GrowingText(), ""
    for event in events:
        pieces += text.heard(event) if isinstance(event, Interim) else text.settled(event)
        assert pieces == text.text
