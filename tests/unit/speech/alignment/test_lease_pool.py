"""Who gets an item, and what happens to it."""

from __future__ import annotations

import threading

import pytest

from voiceforge.speech.alignment.lease_pool import LeasePool


class Item:
    pass


def test_an_item_is_made_when_first_needed_and_used_again() -> None:
    made: list[Item] = []
    pool = LeasePool(lambda: made.append(Item()) or made[-1], 2)
    assert made == []

    with pool.lease() as first:
        pass
    with pool.lease() as second:
        pass

    assert first is second
    assert len(made) == 1


def test_users_at_the_same_time_get_different_items_up_to_the_size() -> None:
    pool = LeasePool(Item, 2)
    third_got: list[Item] = []

    def third() -> None:
        with pool.lease() as item:
            third_got.append(item)

    waiting = threading.Thread(target=third)
    with pool.lease() as a:
        with pool.lease() as b:
            assert a is not b
            waiting.start()
            assert third_got == []
        waiting.join(timeout=30)
        assert third_got == [b]


def test_an_item_whose_user_failed_is_not_lent_again() -> None:
    pool = LeasePool(Item, 1)

    with pytest.raises(RuntimeError), pool.lease() as broken:
        raise RuntimeError

    with pool.lease() as fresh:
        assert fresh is not broken


def test_dropped_items_are_made_anew() -> None:
    pool = LeasePool(Item, 1)
    with pool.lease() as old:
        pass

    pool.drop_idle()

    with pool.lease() as new:
        assert new is not old
