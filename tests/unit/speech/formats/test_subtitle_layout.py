"""Where captions and lines break, seen through the rendered files."""

from __future__ import annotations

import pytest

from voiceforge.errors import InvalidRequest
from voiceforge.speech.formats import SubtitleOptions, render
from voiceforge.speech.transcript import Coverage, Language, ModelRef, Segment, Transcript, Word


def document(*segments: Segment, duration: float) -> Transcript:
    return Transcript(
        text=" ".join(s.text for s in segments),
        segments=segments,
        duration=duration,
        language=Language("en", 1.0),
        coverage=Coverage(duration, duration),
        model=ModelRef("test", "1"),
    )


def spoken(
    text: str, start: float = 0.0, word_s: float = 0.3, pauses: dict[str, float] | None = None
) -> Segment:
    words = []
    now = start
    for token in text.split():
        words.append(Word(token, now, now + word_s))
        now += word_s + (pauses or {}).get(token, 0.0)
    return Segment(0, start, words[-1].end, text, words=tuple(words))


def captions(body: str) -> list[list[str]]:
    """The lines of each caption of a SubRip file."""
    return [block.strip().split("\n")[2:] for block in body.split("\n\n") if block.strip()]


def times(body: str) -> list[str]:
    return [line for line in body.splitlines() if "-->" in line]


def test_a_cue_ends_with_the_sentence_rather_than_when_it_is_full() -> None:
    text = (
        "It was late when we arrived at the station. "
        "Nobody was there to meet us, so we walked all the way home."
    )
    assert captions(render(document(spoken(text), duration=9.0), "srt")) == [
        ["It was late when we", "arrived at the station."],
        ["Nobody was there to meet us,", "so we walked all the way home."],
    ]


def test_short_sentences_share_a_cue_unless_a_pause_parts_them() -> None:
    text = "Yes. I think so."
    assert captions(render(document(spoken(text), duration=3.0), "srt")) == [["Yes. I think so."]]
    paused = spoken(text, pauses={"Yes.": 1.0})
    assert captions(render(document(paused, duration=4.0), "srt")) == [["Yes."], ["I think so."]]


def test_the_beginning_of_a_sentence_is_not_left_by_itself() -> None:
    """Eight seconds and a half: two cues, each a fair part."""
    text = "Ever tried, ever failed, no matter, try again, fail again, fail better."
    pauses = {"tried,": 0.7, "failed,": 0.8, "matter,": 0.8, "again,": 0.9}
    assert captions(render(document(spoken(text, pauses=pauses), duration=12.0), "srt")) == [
        ["Ever tried, ever failed,"],
        ["no matter, try again,", "fail again, fail better."],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Well, we have waited for him in the rain since the morning when he had gone away to work.",
        "We have waited for him in the rain since the morning when he had gone away to work, alas.",
    ],
)
def test_no_single_word_of_a_sentence_stands_alone(text: str) -> None:
    pauses = {"Well,": 0.8, "work,": 0.8}
    cues = captions(render(document(spoken(text, pauses=pauses), duration=13.0), "srt"))
    assert all(" " in " ".join(lines) for lines in cues), cues


def test_a_long_pause_parts_even_half_a_sentence() -> None:
    segment = spoken("and the winner is John Smith", pauses={"is": 3.0})
    body = render(document(segment, duration=10.0), "srt")
    assert captions(body) == [["and the winner is"], ["John Smith"]]
    assert times(body)[1].startswith("00:00:04,200")


def test_lines_are_balanced() -> None:
    text = "one two three four five six seven eight nine ten"
    (lines,) = captions(render(document(spoken(text), duration=9.0), "srt"))
    assert len(lines) == 2
    assert abs(len(lines[0]) - len(lines[1])) <= 5


def test_what_fits_on_one_line_stays_on_one() -> None:
    text = "exactly forty-two columns wide, not more.."
    assert len(text) == 42
    assert captions(render(document(spoken(text), duration=9.0), "srt")) == [[text]]


def test_a_word_wider_than_a_line_is_cut_and_nothing_is_lost() -> None:
    word = "x" * 100
    found = captions(render(document(Segment(0, 0, 9.0, word), duration=9.0), "srt"))
    assert "".join("".join(lines) for lines in found) == word
    assert max(len(line) for lines in found for line in lines) == 42


def test_fast_speech_stays_on_screen_into_the_silence_after_it() -> None:
    fast = spoken("a really rather fast remark, spoken quickly", word_s=0.1)
    body = render(document(fast, duration=20.0), "srt")
    assert times(body) == ["00:00:00,000 --> 00:00:02,150"]  # 43 characters at 20 a second


def test_slow_readers_get_more_time() -> None:
    fast = spoken("a really rather fast remark, spoken quickly", word_s=0.1)
    body = render(document(fast, duration=20.0), "srt", subtitles=SubtitleOptions(max_chars_per_s=10))
    assert times(body) == ["00:00:00,000 --> 00:00:04,300"]


def test_a_single_short_word_stays_for_the_shortest_duration() -> None:
    body = render(document(Segment(0, 2.0, 2.1, "No."), duration=10.0), "srt")
    assert times(body) == ["00:00:02,000 --> 00:00:02,800"]


def test_a_gap_is_left_between_cues() -> None:
    text = "First sentence of the two, made long enough. Second sentence of the two, made long enough too."
    first, second = times(render(document(spoken(text, word_s=0.4), duration=9.0), "srt"))
    assert first.endswith("00:00:03,120")
    assert second.startswith("00:00:03,200")


def test_the_first_cue_begins_with_the_first_word() -> None:
    body = render(document(spoken("Hello there, my friend.", start=12.3456), duration=30.0), "vtt")
    assert times(body)[0].startswith("00:00:12.346")


def test_hours_are_written_and_milliseconds_rounded() -> None:
    body = render(document(Segment(0, 3599.9996, 3605.0, "Past the hour."), duration=36000.0), "srt")
    assert times(body) == ["01:00:00,000 --> 01:00:05,000"]


def test_wide_characters_count_twice_and_break_anywhere_but_before_closing_marks() -> None:
    text = "客観的実在の判断的知識が成立するのである。" * 3
    found = captions(render(document(Segment(0, 0, 20.0, text), duration=20.0), "srt"))
    lines = [line for cue in found for line in cue]
    assert "".join(lines) == text
    assert max(len(line) for line in lines) <= 21
    assert not any(line.startswith("。") for line in lines)


def test_wide_text_breaks_after_its_full_stop_too() -> None:
    text = "客観的実在の判断的知識が成立するのである。「本当に」そうだろうか。"
    (lines,) = captions(render(document(Segment(0, 0, 6.0, text), duration=6.0), "srt"))
    assert lines == ["客観的実在の判断的知識が成立するのである。", "「本当に」そうだろうか。"]


def test_right_to_left_text_is_not_touched() -> None:
    text = "مرحبا بكم في هذا البرنامج الجديد"
    body = render(document(Segment(0, 0, 4.0, text), duration=4.0), "vtt")
    assert body == f"WEBVTT\n\n00:00:00.000 --> 00:00:04.000\n{text}\n"


def test_combined_characters_are_never_torn() -> None:
    text = "é" * 60
    found = captions(render(document(Segment(0, 0, 9.0, text), duration=9.0), "srt"))
    lines = [line for cue in found for line in cue]
    assert "".join(lines) == text
    assert not any(line.startswith("\u0301") for line in lines)


def test_newlines_and_blank_lines_in_the_text_do_not_break_the_file() -> None:
    text = "one\n\n2\n00:00:01,000 --> 00:00:02,000\ntwo\r\n\r\nthree\u2028four"
    srt = render(document(Segment(0, 0, 4.0, text), duration=4.0), "srt")
    assert captions(srt) == [["one 2 00:00:01,000 →", "00:00:02,000 two three four"]]
    assert len(times(srt)) == 1
    vtt = render(document(Segment(0, 0, 4.0, text), duration=4.0), "vtt")
    assert len(times(vtt)) == 1
    assert "--&gt;" in vtt


def test_vtt_names_the_speaker_and_escapes_the_name() -> None:
    segment = Segment(0, 0.0, 2.0, "Q & A: <now>", speaker="Ann <b>")
    assert render(document(segment, duration=2.0), "vtt").endswith(
        "\n<v Ann &lt;b&gt;>Q &amp; A: &lt;now&gt;\n"
    )


def test_nothing_said_gives_an_empty_file_of_its_kind() -> None:
    silence = document(duration=5.0)
    assert render(silence, "srt") == ""
    assert render(silence, "vtt") == "WEBVTT\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_lines", 0),
        ("max_line_chars", 5),
        ("max_chars_per_s", 0.0),
        ("min_duration_s", -1.0),
        ("max_duration_s", 0.1),
        ("min_gap_s", 3.0),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SubtitleOptions(**{name: value})  # type: ignore[arg-type]
    assert refused.value.field == name
