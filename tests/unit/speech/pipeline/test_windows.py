from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.pipeline.windows import PackingRule, Window, WindowPlanner
from voiceforge.speech.vad.regions import Region

S = SAMPLE_RATE_HZ


def region(start_s: float, end_s: float, *, cut: bool = False) -> Region:
    return Region(int(start_s * S), int(end_s * S), 0.9, cut)


@dataclass(frozen=True)
class Recording:
    regions: tuple[Region, ...]
    total: int


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """Regions of up to 10 s; some follow on the one before without a pause, as behind a cut."""
    regions: list[Region] = []
    at = draw(st.integers(0, 3 * S))
    for _ in range(draw(st.integers(0, 12))):
        if regions and draw(st.booleans()):
            before = regions[-1]
            regions[-1] = Region(before.start, before.end, before.probability, cut=True)
        elif regions:
            at += draw(st.integers(1, 6 * S))
        end = at + draw(st.integers(1, 10 * S))
        regions.append(Region(at, end, 0.9))
        at = end
    return Recording(tuple(regions), at + draw(st.integers(0, 5 * S)))


RULES = st.builds(
    PackingRule,
    target_samples=st.integers(10 * S, 20 * S),
    padding_samples=st.sampled_from([0, S // 5, 3 * S]),
)


def plan(recording: Recording, rule: PackingRule, checkpoints: Sequence[int] = ()) -> list[Window]:
    """As the channel does it: every region is told of when it has ended, at one of the checkpoints."""
    planner = WindowPlanner(rule)
    windows: list[Window] = []
    told = 0
    for position in [*sorted(checkpoints), recording.total]:
        ended = [r for r in recording.regions[told:] if r.end <= position]
        told += len(ended)
        following = recording.regions[told].start if told < len(recording.regions) else position
        windows += planner.push(ended, min(following, position))
    return windows + planner.flush(recording.total)


@given(recordings(), RULES, st.lists(st.integers(0, 60 * S), max_size=10))
def test_whenever_it_is_told_the_windows_are_the_same(
    recording: Recording, rule: PackingRule, checkpoints: list[int]
) -> None:
    inside = [c for c in checkpoints if c <= recording.total]
    assert plan(recording, rule, inside) == plan(recording, rule)


@given(recordings(), RULES)
def test_every_region_is_in_one_window_and_windows_keep_apart(
    recording: Recording, rule: PackingRule
) -> None:
    windows = plan(recording, rule, range(0, recording.total, S))
    assert tuple(r for window in windows for r in window.regions) == recording.regions
    for window in windows:
        assert window.start <= window.regions[0].start
        assert window.regions[-1].end <= window.end
        assert window.start >= window.regions[0].start - rule.padding_samples
        assert window.end <= window.regions[-1].end + rule.padding_samples
        assert 0 <= window.start < window.end <= recording.total
        assert window.speech_samples == sum(r.samples for r in window.regions)
    for before, after in itertools.pairwise(windows):
        assert before.end <= after.start


@given(recordings(), RULES)
def test_a_window_is_longer_than_wanted_only_where_one_region_is(
    recording: Recording, rule: PackingRule
) -> None:
    for window in plan(recording, rule):
        if len(window.regions) > 1:
            assert window.end - window.start <= rule.target_samples
        else:
            assert window.end - window.start <= window.regions[0].samples + 2 * rule.padding_samples


@given(recordings(), RULES)
def test_a_long_pause_ends_a_window_and_a_short_one_does_not_while_there_is_room(
    recording: Recording, rule: PackingRule
) -> None:
    windows = plan(recording, rule)
    for window in windows:
        for before, after in itertools.pairwise(window.regions):
            assert after.start - before.end <= rule.max_pause_samples
    for before_window, after_window in itertools.pairwise(windows):
        following = after_window.regions[0]
        pause = following.start - before_window.regions[-1].end
        joined = following.end + rule.padding_samples - before_window.start
        assert pause > rule.max_pause_samples or joined > rule.target_samples


def rule(target_s: float = 12.0, padding_s: float = 0.2) -> PackingRule:
    return PackingRule(int(target_s * S), int(padding_s * S))


def spans(windows: list[Window]) -> list[tuple[float, float]]:
    return [(round(window.start / S, 3), round(window.end / S, 3)) for window in windows]


def test_a_region_that_lasts_long_still_joins_the_one_before_it() -> None:
    """It is only told of when it ends, seconds after the pause: that is no reason to part them."""
    talk = Recording((region(1, 2), region(2.5, 8)), 10 * S)
    assert spans(plan(talk, rule(), range(0, 10 * S, S // 4))) == [(0.8, 8.2)]


def test_windows_share_a_short_pause_and_never_the_sound_behind_a_cut() -> None:
    talk = Recording((region(1, 9, cut=True), region(9, 17), region(17.2, 25)), 30 * S)
    assert spans(plan(talk, rule())) == [(0.8, 9.0), (9.0, 17.1), (17.1, 25.2)]


def test_air_is_kept_within_the_recording() -> None:
    talk = Recording((region(0.1, 2), region(5, 7.95)), int(8.05 * S))
    assert spans(plan(talk, rule())) == [(0.0, 2.2), (4.8, 8.05)]


@pytest.mark.parametrize(("pause_s", "windows"), [(2.0, 1), (2.01, 2)])
def test_two_seconds_are_the_longest_pause_inside(pause_s: float, windows: int) -> None:
    talk = Recording((region(1, 2), region(2 + pause_s, 5)), 6 * S)
    assert len(plan(talk, rule())) == windows


def test_it_tells_what_audio_it_still_needs() -> None:
    planner = WindowPlanner(rule())
    assert planner.needed_from is None
    planner.push([region(1, 2)], 2 * S)
    assert planner.needed_from == int(0.8 * S)
    planner.push([], 5 * S)
    assert planner.needed_from is None


def test_silence_has_no_windows() -> None:
    assert plan(Recording((), 60 * S), rule(), range(0, 60 * S, S)) == []
