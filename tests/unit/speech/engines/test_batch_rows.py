from __future__ import annotations

from voiceforge.speech.engines.batch_rows import RowLimit


def test_all_the_rows_of_the_engine_until_memory_runs_out() -> None:
    assert RowLimit(16).rows(now=0.0) == 16


def test_half_of_what_did_not_fit() -> None:
    limit = RowLimit(16)
    limit.did_not_fit(16, now=5.0)
    assert limit.rows(now=5.0) == 8
    limit.did_not_fit(5, now=6.0)
    assert limit.rows(now=6.0) == 2
    limit.did_not_fit(8, now=7.0)  # another worker's, begun before
    assert limit.rows(now=7.0) == 2


def test_never_less_than_one() -> None:
    limit = RowLimit(4)
    for rows in (2, 1, 1):
        limit.did_not_fit(rows, now=0.0)
    assert limit.rows(now=0.0) == 1


def test_it_grows_back_step_by_step() -> None:
    limit = RowLimit(12)
    limit.did_not_fit(4, now=0.0)
    assert [limit.rows(now) for now in (59.0, 60.0, 119.0, 120.0, 180.0, 900.0)] == [2, 4, 4, 8, 12, 12]


def test_what_did_not_fit_lately_is_not_tried_soon() -> None:
    limit = RowLimit(8)
    limit.did_not_fit(8, now=0.0)
    assert limit.rows(now=60.0) == 8
    limit.did_not_fit(8, now=61.0)
    assert limit.rows(now=120.0) == 4
