"""Whatever the transcript, the subtitles parse back with independent libraries and obey their rules."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from html import unescape
from io import StringIO
from itertools import groupby, pairwise

import pysrt
import pytest
import webvtt
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from voiceforge.speech.formats import SubtitleOptions, render
from voiceforge.speech.transcript import Coverage, Language, ModelRef, Segment, Transcript, Word

ROUNDING_MS = 1
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

LATIN = st.text("abcdefghijklmnopqrstuvwxyzäéß", min_size=1, max_size=14)
PUNCTUATED = st.builds(str.__add__, LATIN, st.sampled_from([",", ".", "?", "!", ";", "…", '."']))
HOSTILE = st.sampled_from(["-->", "<b>", "&amp;", "7", "00:00:01,000", "NOTE", "WEBVTT", "--->", "<v", "a&b"])
LONG = st.text("abcdefghij", min_size=40, max_size=100)
HAN = st.text("今日は天気がいいですね。「本当」、中国广州市", min_size=1, max_size=50)
ARABIC = st.text("مرحباكميفهذالبرنججديد،", min_size=1, max_size=9)
HINDI = st.text("नमस्ते दुनिया".replace(" ", ""), min_size=1, max_size=60)
SPACED_WORD = st.one_of(LATIN, LATIN, PUNCTUATED, ARABIC)
ANY_WORD = st.one_of(SPACED_WORD, HOSTILE, LONG, HAN, HINDI, st.just("👩‍👩‍👧"))


@dataclass(frozen=True)
class Caption:
    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    voice: str | None = None

    @property
    def text(self) -> str:
        return " ".join(self.lines)

    @property
    def length_ms(self) -> int:
        return self.end_ms - self.start_ms


def columns(text: str) -> int:
    """Counted independently: two for wide characters, none for marks and invisible ones."""
    return sum(
        0
        if unicodedata.category(char) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(char) in ("W", "F")
        else 1
        for char in text
    )


def bare(text: str) -> str:
    return "".join(text.split())


def read_srt(body: str) -> list[Caption]:
    items = pysrt.from_string(body, error_handling=pysrt.SubRipFile.ERROR_RAISE)
    assert [item.index for item in items] == list(range(1, len(items) + 1))
    return [Caption(item.start.ordinal, item.end.ordinal, tuple(item.text.split("\n"))) for item in items]


def read_vtt(body: str) -> list[Caption]:
    def ms(clock: str) -> int:
        hours, minutes, seconds = clock.split(":")
        return int(hours) * 3_600_000 + int(minutes) * 60_000 + int(seconds.replace(".", ""))

    assert body.startswith("WEBVTT\n")
    captions = webvtt.WebVTT.from_buffer(StringIO(body), format="vtt").captions
    return [Caption(ms(c.start), ms(c.end), tuple(unescape(c.text).split("\n")), c.voice) for c in captions]


@st.composite
def segments(
    draw: st.DrawFn,
    word: st.SearchStrategy[str],
    *,
    channel: int | None = None,
    speakers: bool = False,
    timed: bool | None = None,
) -> list[Segment]:
    """Segments of one channel in time order that do not overlap, with or without word times."""
    result: list[Segment] = []
    now = draw(st.floats(0, 3))
    for identifier in range(draw(st.integers(0, 5))):
        texts = draw(st.lists(word, min_size=1, max_size=30))
        has_words = draw(st.booleans()) if timed is None else timed
        speaker = draw(st.sampled_from("AB")) if speakers else None
        words: list[Word] = []
        start = now
        for text in texts:
            length = draw(st.floats(0.02, 0.9))
            words.append(Word(text, now, now + length, speaker=speaker))
            now += length + draw(st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.4, 2.5]))
        result.append(
            Segment(
                identifier,
                start,
                words[-1].end,
                " ".join(texts),
                words=tuple(words) if has_words else (),
                channel=channel,
                speaker=speaker,
            )
        )
        now += draw(st.floats(0, 3))
    return result


def transcript(parts: list[Segment], tail_s: float = 0.0) -> Transcript:
    duration = max((s.end for s in parts), default=0.0) + tail_s
    return Transcript(
        text=" ".join(s.text for s in parts),
        segments=tuple(parts),
        duration=duration,
        language=Language("en", 1.0),
        coverage=Coverage(duration, duration),
        model=ModelRef("test", "1"),
    )


OPTIONS = st.builds(
    SubtitleOptions,
    max_lines=st.integers(1, 3),
    max_line_chars=st.integers(16, 60),
    max_chars_per_s=st.floats(8, 40),
    min_duration_s=st.floats(0.2, 1.5),
    max_duration_s=st.floats(3, 10),
    min_gap_s=st.floats(0, 0.2),
)


def check_limits(captions: list[Caption], document: Transcript, options: SubtitleOptions) -> None:
    duration_ms = round(document.duration * 1000)
    for caption in captions:
        assert 0 <= caption.start_ms < caption.end_ms <= duration_ms
        assert len(caption.lines) <= options.max_lines
        assert all(line.strip() for line in caption.lines)
        assert all(columns(line) <= options.max_line_chars for line in caption.lines)
        assert caption.length_ms <= options.max_duration_s * 1000 + ROUNDING_MS
    for caption, following in pairwise(captions):
        gap_ms = following.start_ms - caption.end_ms
        assert gap_ms >= 0
        if gap_ms < options.min_gap_s * 1000 - ROUNDING_MS:
            assert caption.length_ms <= options.min_duration_s * 1000 + ROUNDING_MS


@QUICK
@given(parts=segments(ANY_WORD), tail_s=st.floats(0.01, 5), options=OPTIONS)
def test_srt_parses_back_within_limits_and_with_all_text(
    parts: list[Segment], tail_s: float, options: SubtitleOptions
) -> None:
    document = transcript(parts, tail_s)
    captions = read_srt(render(document, "srt", subtitles=options))
    check_limits(captions, document, options)
    assert bare("".join(c.text for c in captions)) == bare(document.text.replace("-->", "→"))


@QUICK
@given(parts=segments(ANY_WORD), tail_s=st.floats(0.01, 5), options=OPTIONS)
def test_vtt_parses_back_within_limits_and_with_all_text(
    parts: list[Segment], tail_s: float, options: SubtitleOptions
) -> None:
    document = transcript(parts, tail_s)
    captions = read_vtt(render(document, "vtt", subtitles=options))
    check_limits(captions, document, options)
    assert bare("".join(c.text for c in captions)) == bare(document.text)


@QUICK
@given(parts=segments(SPACED_WORD), options=OPTIONS)
def test_words_stay_whole_where_a_line_can_hold_them(parts: list[Segment], options: SubtitleOptions) -> None:
    document = transcript(parts, 1.0)
    assume(all(columns(word) <= options.max_line_chars for word in document.text.split()))
    captions = read_srt(render(document, "srt", subtitles=options))
    assert " ".join(c.text for c in captions).split() == document.text.split()


@QUICK
@given(parts=segments(SPACED_WORD, timed=True), options=OPTIONS)
def test_a_cue_begins_with_its_first_word(parts: list[Segment], options: SubtitleOptions) -> None:
    """Only a cue with no room after it may come earlier, by no more than the shortest duration."""
    document = transcript(parts, 1.0)
    assume(all(columns(word) <= options.max_line_chars for word in document.text.split()))
    words = iter(document.words)
    for caption in read_srt(render(document, "srt", subtitles=options)):
        first = next(words)
        for _ in caption.text.split()[1:]:
            next(words)
        early_ms = first.start * 1000 - caption.start_ms
        assert -ROUNDING_MS <= early_ms <= options.min_duration_s * 1000 + ROUNDING_MS
        if early_ms > ROUNDING_MS:
            assert caption.length_ms <= options.min_duration_s * 1000 + ROUNDING_MS


@QUICK
@given(parts=segments(SPACED_WORD), tail_s=st.floats(0, 5), options=OPTIONS)
def test_a_cue_is_too_fast_or_too_short_only_where_there_is_no_room(
    parts: list[Segment], tail_s: float, options: SubtitleOptions
) -> None:
    document = transcript(parts, tail_s)
    captions = read_srt(render(document, "srt", subtitles=options))
    ends_of_room = [c.start_ms for c in captions[1:]] + [round(document.duration * 1000)] * bool(captions)
    for caption, room_until_ms in zip(captions, ends_of_room, strict=True):
        no_room = room_until_ms - caption.end_ms <= options.min_gap_s * 1000 + ROUNDING_MS
        longest = caption.length_ms >= options.max_duration_s * 1000 - ROUNDING_MS
        needed_ms = 1000 * columns(caption.text) / options.max_chars_per_s
        assert caption.length_ms >= needed_ms - ROUNDING_MS or no_room or longest
        assert caption.length_ms >= options.min_duration_s * 1000 - ROUNDING_MS or no_room


@QUICK
@given(parts=segments(SPACED_WORD, speakers=True), options=OPTIONS)
def test_no_cue_spans_two_speakers(parts: list[Segment], options: SubtitleOptions) -> None:
    captions = read_vtt(render(transcript(parts, 1.0), "vtt", subtitles=options))
    heard = [
        (voice, bare("".join(c.text for c in group))) for voice, group in groupby(captions, lambda c: c.voice)
    ]
    said = [
        (speaker, bare("".join(s.text for s in group)))
        for speaker, group in groupby(parts, lambda s: s.speaker)
    ]
    assert heard == said


@QUICK
@given(left=segments(ANY_WORD, channel=0), right=segments(ANY_WORD, channel=1), options=OPTIONS)
def test_two_channels_at_once_keep_their_text_apart_and_in_order(
    left: list[Segment], right: list[Segment], options: SubtitleOptions
) -> None:
    document = transcript(sorted(left + right, key=lambda s: s.start), 2.0)
    captions = read_vtt(render(document, "vtt", subtitles=options))
    check_limits(captions, document, options)
    for voice, parts in (("Channel 1", left), ("Channel 2", right)):
        heard = "".join(c.text for c in captions if c.voice == voice)
        assert bare(heard) == bare("".join(s.text for s in parts))


@QUICK
@given(text=st.text(max_size=120), duration=st.floats(0, 20))
@pytest.mark.parametrize("fmt", ["srt", "vtt"])
def test_any_text_at_all_gives_a_file_that_parses(fmt: str, text: str, duration: float) -> None:
    parts = [Segment(0, 0.0, duration, text)]
    captions = (read_srt if fmt == "srt" else read_vtt)(render(transcript(parts), fmt))
    for caption, following in pairwise(captions):
        assert caption.end_ms <= following.start_ms
    if "-->" not in text and duration > 1:
        visible = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Mn", "Me"))
        heard = "".join(c.text for c in captions)
        assert bare("".join(c for c in heard if unicodedata.category(c) not in ("Cf", "Mn", "Me"))) == bare(
            visible
        )
