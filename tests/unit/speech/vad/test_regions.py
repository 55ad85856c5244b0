from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.options import VadOptions
from voiceforge.speech.vad.regions import Region, RegionDetector
from voiceforge.speech.vad.silero import FRAME_SAMPLES

FRAME_MS = 32
LONG = 10**9
LOUD, QUIET = 0.95, 0.05

RUNS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.05, 0.34, 0.36, 0.49, 0.51, 0.9, 1.0]), st.integers(1, 25)), max_size=25
)
OPTIONS = st.builds(
    VadOptions,
    threshold=st.sampled_from([0.05, 0.3, 0.5, 0.9]),
    min_speech_ms=st.sampled_from([0, 32, 100, 500]),
    min_silence_ms=st.sampled_from([0, 32, 100, 300, 1000]),
)


def spell(*runs: tuple[float, int]) -> list[float]:
    return [p for p, count in runs for _ in range(count)]


def detect(
    probabilities: list[float], options: VadOptions | None = None, *, longest_frames: int = LONG
) -> list[Region]:
    detector = RegionDetector(options or VadOptions(), longest_frames * FRAME_SAMPLES)
    return detector.push(probabilities) + detector.flush()


def frames(regions: list[Region]) -> list[tuple[int, int]]:
    return [(region.start // FRAME_SAMPLES, region.end // FRAME_SAMPLES) for region in regions]


@given(RUNS, OPTIONS, st.integers(2, 60), st.data())
def test_however_the_frames_come_the_regions_are_the_same(
    runs: list[tuple[float, int]], options: VadOptions, longest: int, data: st.DataObject
) -> None:
    probabilities = spell(*runs)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(probabilities)), max_size=10)))
    bounds = [0, *cuts, len(probabilities)]
    detector = RegionDetector(options, longest * FRAME_SAMPLES)
    pieces = [detector.push(probabilities[a:b]) for a, b in itertools.pairwise(bounds)]
    assert [r for piece in pieces for r in piece] + detector.flush() == detect(
        probabilities, options, longest_frames=longest
    )


@given(RUNS, OPTIONS, st.integers(2, 60))
def test_regions_are_in_order_apart_inside_and_no_longer_than_asked(
    runs: list[tuple[float, int]], options: VadOptions, longest: int
) -> None:
    probabilities = spell(*runs)
    regions = detect(probabilities, options, longest_frames=longest)
    for region in regions:
        assert 0 <= region.start < region.end <= len(probabilities) * FRAME_SAMPLES
        assert region.samples <= longest * FRAME_SAMPLES
        assert 0.0 <= region.probability <= 1.0
    for before, after in itertools.pairwise(regions):
        assert before.end <= after.start
        assert not before.cut or before.end == after.start


@given(RUNS, st.integers(2, 60))
def test_no_frame_that_is_surely_speech_is_lost(runs: list[tuple[float, int]], longest: int) -> None:
    """Not even where a region has to be cut, however little of it is left behind the cut."""
    probabilities = spell(*runs)
    regions = frames(detect(probabilities, VadOptions(min_speech_ms=0), longest_frames=longest))
    for frame, probability in enumerate(probabilities):
        if probability >= 0.5:
            assert any(start <= frame < end for start, end in regions)


@given(RUNS, OPTIONS)
def test_what_is_shorter_than_speech_can_be_is_dropped_and_short_pauses_do_not_part(
    runs: list[tuple[float, int]], options: VadOptions
) -> None:
    regions = detect(spell(*runs), options)
    per_ms = 16
    for region in regions:
        assert region.samples >= options.min_speech_ms * per_ms
    for before, after in itertools.pairwise(regions):
        assert after.start - before.end >= options.min_silence_ms * per_ms


def test_a_region_ends_where_its_pause_began() -> None:
    assert frames(detect(spell((QUIET, 10), (LOUD, 20), (QUIET, 15)))) == [(10, 30)]


def test_a_region_that_is_still_open_ends_with_the_stream() -> None:
    assert frames(detect(spell((QUIET, 4), (LOUD, 20)))) == [(4, 24)]
    assert frames(detect(spell((QUIET, 4), (LOUD, 20), (QUIET, 3)))) == [(4, 24)]


@pytest.mark.parametrize(
    ("between", "regions"), [(0.34, [(0, 10), (22, 32)]), (0.36, [(0, 32)])], ids=["below", "above"]
)
def test_it_closes_lower_than_it_opens(between: float, regions: list[tuple[int, int]]) -> None:
    assert frames(detect(spell((LOUD, 10), (between, 12), (LOUD, 10)))) == regions
    assert frames(detect(spell((between, 40)))) == []


def test_pauses_and_speech_are_measured_in_milliseconds() -> None:
    options = VadOptions(min_speech_ms=10 * FRAME_MS, min_silence_ms=5 * FRAME_MS)
    assert frames(detect(spell((LOUD, 9), (QUIET, 9)), options)) == []
    assert frames(detect(spell((LOUD, 10), (QUIET, 9)), options)) == [(0, 10)]
    assert frames(detect(spell((LOUD, 10), (QUIET, 4), (LOUD, 10)), options)) == [(0, 24)]
    assert frames(detect(spell((LOUD, 10), (QUIET, 5), (LOUD, 10)), options)) == [(0, 10), (15, 25)]


def test_a_region_too_long_is_split_at_the_weakest_moment_of_its_later_half() -> None:
    # Weakest of all is frame 10, but cutting there would leave a stump; of the later half, 70.
    probabilities = spell((LOUD, 10), (0.40, 5), (LOUD, 55), (0.60, 5), (LOUD, 5), (0.80, 5), (LOUD, 65))
    first, second = detect(probabilities, longest_frames=100)
    assert (first.cut, second.cut) == (True, False)
    assert frames([first, second]) == [(0, 72), (72, 150)]


def test_one_weak_frame_is_no_pause() -> None:
    probabilities = spell((LOUD, 60), (0.36, 1), (LOUD, 20), (0.60, 5), (LOUD, 64))
    first, _ = detect(probabilities, longest_frames=100)
    assert frames([first]) == [(0, 83)]


def test_a_pause_that_has_begun_ends_a_region_too_long() -> None:
    first, second = detect(spell((LOUD, 95), (QUIET, 6), (LOUD, 40)), longest_frames=100)
    assert frames([first, second]) == [(0, 95), (101, 141)]
    assert not first.cut


def test_what_is_left_behind_a_cut_is_kept_however_short() -> None:
    regions = detect(spell((LOUD, 97), (0.4, 3), (LOUD, 1), (QUIET, 20)), longest_frames=100)
    assert frames(regions)[-1][1] == 101
    assert regions[0].cut


def test_a_region_knows_how_clear_it_was_pauses_included() -> None:
    (region,) = detect(spell((0.8, 10), (0.2, 5), (0.8, 5), (0.0, 20)))
    assert region.probability == pytest.approx((15 * 0.8 + 5 * 0.2) / 20)


def test_it_tells_where_it_is() -> None:
    detector = RegionDetector(VadOptions(), LONG)
    detector.push(spell((QUIET, 5)))
    assert (detector.position, detector.open_since) == (5 * FRAME_SAMPLES, None)
    detector.push(spell((LOUD, 5)))
    assert (detector.position, detector.open_since) == (10 * FRAME_SAMPLES, 5 * FRAME_SAMPLES)
    detector.push(spell((QUIET, 20)))
    assert detector.open_since is None
