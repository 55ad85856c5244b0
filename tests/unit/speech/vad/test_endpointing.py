from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.vad.endpointing import (
    Began,
    Ended,
    Endpoint,
    Endpointer,
    EndpointRule,
    Faded,
    Paused,
    Resumed,
)
from voiceforge.speech.vad.silero import FRAME_SAMPLES as FRAME

RULE = EndpointRule(threshold=0.5, endpoint_ms=300, max_utterance_samples=100 * FRAME)
"""300 ms are ten frames, the tail of 128 ms is four."""


def listen(rule: EndpointRule, pattern: str, close: bool = True) -> list[Endpoint]:
    """`#` is a frame of speech, `.` one of silence, `~` one between the thresholds."""
    endpointer = Endpointer(rule)
    found = [e for mark in pattern for e in endpointer.judge({"#": 0.9, ".": 0.1, "~": 0.4}[mark])]
    return found + (endpointer.end(len(pattern) * FRAME, "close") if close else [])


def ends(found: Sequence[Endpoint]) -> list[tuple[int, int, str]]:
    """(start frame, end frame, reason) of every utterance."""
    return [(e.spoken.start // FRAME, e.spoken.end // FRAME, e.reason) for e in found if isinstance(e, Ended)]


def kinds(found: Sequence[Endpoint]) -> str:
    return " ".join(type(e).__name__ for e in found)


def test_an_utterance_ends_where_the_pause_began_once_that_has_lasted() -> None:
    found = listen(RULE, "..######" + "." * 9, close=False)
    assert kinds(found) == "Began Paused"
    found = listen(RULE, "..######" + "." * 10, close=False)
    assert kinds(found) == "Began Paused Ended"
    assert ends(found) == [(2, 8, "silence")]


def test_what_is_paused_at_is_what_ends() -> None:
    _, paused, ended = listen(RULE, "..######" + "." * 10, close=False)
    assert isinstance(paused, Paused)
    assert isinstance(ended, Ended)
    assert paused.spoken == ended.spoken
    assert ended.spoken.tail_end == 12 * FRAME


@pytest.mark.parametrize(
    ("said_before", "before", "frames"),
    [(69, 0.9, 10), (69, 0.8, 9), (69, 0.7, 9), (69, 0.5, 8), (7, 0.8, 9), (7, 0.5, 9)],
)
def test_a_pause_is_counted_from_where_speech_faded(said_before: int, before: float, frames: int) -> None:
    endpointer = Endpointer(RULE)
    said = [0.9] * said_before + [before]
    found = [endpointer.judge(p) for p in (*said, *[0.1] * frames)]
    assert [kinds(each) for each in found[-2:]] == ["", "Ended"]
    (ended,) = found[-1]
    assert isinstance(ended, Ended)
    assert (ended.spoken.end, ended.spoken.tail_end) == (len(said) * FRAME, (len(said) + 4) * FRAME)


def test_a_closed_consonant_is_not_made_longer() -> None:
    endpointer = Endpointer(replace(RULE, endpoint_ms=100))
    said = [0.9] * 7 + [0.5]
    found = [kinds(endpointer.judge(p)) for p in (*said, *[0.1] * 4)]
    assert found[-4:] == ["Paused", "", "", "Ended"]


def test_a_pause_that_is_too_short_is_gone_on_from() -> None:
    found = listen(RULE, "#####.....###")
    assert kinds(found) == "Began Paused Resumed Ended"
    assert ends(found) == [(0, 13, "close")]


def test_a_pause_shorter_than_the_tail_tells_nothing() -> None:
    assert kinds(listen(RULE, "#####...###", close=False)) == "Began"


def test_doubtful_frames_neither_open_nor_close() -> None:
    assert listen(RULE, "~~~~~~~~") == []
    assert ends(listen(RULE, "#####~~~~~~~~~~~~~~")) == [(0, 19, "close")]


@pytest.mark.parametrize(("length", "count"), [(3, 0), (4, 1)])
def test_a_click_is_no_utterance(length: int, count: int) -> None:
    assert kinds(listen(RULE, "#" * length + "." * 12)).count("Ended") == count


def test_without_an_endpoint_only_length_and_the_end_do() -> None:
    rule = replace(RULE, endpoint_ms=None)
    assert ends(listen(rule, "#####" + "." * 60 + "##")) == [(0, 67, "close")]
    assert ends(listen(rule, "#####" + "." * 100)) == [(0, 5, "max_length")]


def test_an_endpoint_shorter_than_the_tail_shortens_the_tail() -> None:
    found = listen(replace(RULE, endpoint_ms=10), "#####.", close=False)
    assert kinds(found) == "Began Ended"
    assert isinstance(found[1], Ended)
    assert found[1].spoken.tail_end == 6 * FRAME


def test_an_utterance_lasts_at_least_as_long_as_is_wished() -> None:
    rule = replace(RULE, min_utterance_ms=1000)  # 31.25 frames
    assert ends(listen(rule, "#####" + "." * 26, close=False)) == []
    assert ends(listen(rule, "#####" + "." * 27, close=False)) == [(0, 5, "silence")]


def test_a_long_utterance_is_cut_at_its_least_speech_like_moment() -> None:
    rule = replace(RULE, max_utterance_samples=40 * FRAME)
    found = listen(rule, "#" * 28 + "~~~~~" + "#" * 20)
    assert ends(found) == [(0, 30, "max_length"), (30, 53, "close")]
    assert [e.goes_on for e in found if isinstance(e, Ended)] == [True, False]
    assert kinds(found).count("Began") == 1


def test_a_cut_in_a_pause_lets_it_out() -> None:
    rule = replace(RULE, max_utterance_samples=40 * FRAME, endpoint_ms=1000)
    found = listen(rule, "#" * 24 + "." * 12 + "#" * 20)
    assert ends(found) == [(0, 24, "max_length"), (36, 56, "close")]


def test_long_pauses_part_the_regions_of_an_utterance() -> None:
    found = listen(replace(RULE, endpoint_ms=2000), "#" * 6 + "." * 10 + "#" * 6 + "." * 5 + "#" * 6)
    ended = found[-1]
    assert isinstance(ended, Ended)
    assert [(r.start // FRAME, r.end // FRAME) for r in ended.spoken.regions] == [(0, 6), (16, 33)]


def test_a_finalize_ends_what_is_open_there_and_the_rest_goes_on() -> None:
    endpointer = Endpointer(RULE)
    for _ in range(10):
        endpointer.judge(0.9)
    (ended,) = endpointer.end(10 * FRAME + 100, "finalize")
    assert isinstance(ended, Ended)
    assert (ended.spoken.start, ended.spoken.end, ended.goes_on) == (0, 10 * FRAME + 100, True)
    assert endpointer.end(10 * FRAME + 100, "finalize") == []
    for _ in range(5):
        endpointer.judge(0.9)
    (rest,) = endpointer.end(15 * FRAME, "close")
    assert isinstance(rest, Ended)
    assert (rest.spoken.start, rest.spoken.end) == (10 * FRAME + 100, 15 * FRAME)


def test_silence_after_a_finalize_fades() -> None:
    endpointer = Endpointer(RULE)
    for _ in range(10):
        endpointer.judge(0.9)
    assert endpointer.end(10 * FRAME + 100, "finalize")
    assert [e for _ in range(40) for e in endpointer.judge(0.0)] == [Faded()]
    assert endpointer.open_since is None


frames = st.lists(st.tuples(st.sampled_from((0.05, 0.4, 0.9)), st.integers(1, 30)), max_size=20).map(
    lambda runs: [p for p, count in runs for _ in range(count)]
)
rules = st.builds(
    EndpointRule,
    threshold=st.just(0.5),
    endpoint_ms=st.none() | st.sampled_from((10, 100, 300, 1000)),
    max_utterance_samples=st.integers(20, 60).map(lambda count: count * FRAME),
    min_utterance_ms=st.sampled_from((0, 500)),
)


@given(frames, rules, st.sets(st.integers(0, 400), max_size=3))
def test_utterances_never_overlap_and_hold_all_speech(
    probabilities: list[float], rule: EndpointRule, finalized_at: set[int]
) -> None:
    endpointer = Endpointer(rule)
    found: list[Endpoint] = []
    for frame, p in enumerate(probabilities):
        if frame in finalized_at:
            found += endpointer.end(endpointer.position, "finalize")
        found += endpointer.judge(p)
    found += endpointer.end(endpointer.position, "close")
    spoken = [e.spoken for e in found if isinstance(e, Ended)]
    edges = [edge for s in spoken for edge in (s.start, s.end)]
    assert edges == sorted(edges)
    assert all(s.end - s.start <= rule.max_utterance_samples + FRAME or s.regions[1:] for s in spoken)
    assert all(s.start < s.end <= s.tail_end for s in spoken)
    regions = [r for s in spoken for r in s.regions]
    assert all(r.samples > 0 for r in regions)
    held = {frame for r in regions for frame in range(r.start // FRAME, -(-r.end // FRAME))}
    run = 0
    for frame, p in enumerate([*probabilities, 0.0]):
        run = run + 1 if p >= 0.5 else 0
        if run >= 4:  # less may have been taken for a click
            assert frame in held


@given(frames, rules)
def test_a_pause_is_answered_by_going_on_or_by_an_end_that_is_the_same(
    probabilities: list[float], rule: EndpointRule
) -> None:
    endpointer = Endpointer(rule)
    paused: Paused | None = None
    for found in (endpointer.judge(p) for p in probabilities):
        for endpoint in found:
            if isinstance(endpoint, Paused):
                assert paused is None
                paused = endpoint
            elif isinstance(endpoint, Resumed):
                assert paused is not None
                paused = None
            elif isinstance(endpoint, Ended):
                if paused is not None:
                    assert endpoint.spoken == paused.spoken
                paused = None
            else:
                assert isinstance(endpoint, Began)
                assert paused is None
