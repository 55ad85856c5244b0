from __future__ import annotations

import weakref
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.engines.batch_shares import FairShares


def serve(shares: FairShares[str], keys: str, amount: float) -> str:
    key = min(keys, key=shares.standing)
    shares.charge(key, amount)
    return key


def competing(keys: str) -> FairShares[str]:
    shares: FairShares[str] = FairShares()
    for key in keys:
        shares.enter(key)
    return shares


@given(st.lists(st.floats(0.1, 30.0), min_size=1, max_size=200), st.integers(1, 5))
def test_those_who_always_compete_get_the_same(amounts: list[float], count: int) -> None:
    keys = "abcde"[:count]
    shares = competing(keys)
    had: Counter[str] = Counter(dict.fromkeys(keys, 0))
    for amount in amounts:
        had[serve(shares, keys, amount)] += amount  # type: ignore[assignment]
    assert max(had.values()) - min(had.values()) <= max(amounts) + 1e-6


def test_a_newcomer_is_served_next_and_then_like_the_others() -> None:
    shares = competing("a")
    for _ in range(1000):
        serve(shares, "a", 10.0)
    shares.enter("b")
    assert "".join(serve(shares, "ab", 10.0) for _ in range(9)) in ("babababab", "bbabababa")


def test_who_pauses_is_not_paid_for_it() -> None:
    shares = competing("ab")
    for _ in range(10):
        serve(shares, "ab", 1.0)
    shares.leave("b")
    for _ in range(1000):
        serve(shares, "a", 1.0)
    shares.enter("b")
    assert Counter(serve(shares, "ab", 1.0) for _ in range(20))["b"] <= 11


def test_coming_back_at_once_wipes_nothing_out() -> None:
    shares = competing("ab")
    shares.charge("b", 50.0)
    shares.leave("b")
    serve(shares, "a", 1.0)
    shares.enter("b")
    assert [serve(shares, "ab", 1.0) for _ in range(40)] == ["a"] * 40


@given(st.integers(1, 20), st.floats(0.5, 2.0))
def test_an_endless_row_of_newcomers_keeps_nobody_out(at_once: int, amount: float) -> None:
    shares: FairShares[int] = FairShares()
    shares.enter(0)
    shares.charge(0, 10.0)
    guests = list(range(1, at_once + 1))
    for guest in guests:
        shares.enter(guest)
    for turn in range(200 * (at_once + 1)):
        key = min([0, *guests], key=lambda k: (shares.standing(k), -k))
        shares.charge(key, amount)
        if key == 0:
            return
        shares.forget(key)
        guests.remove(key)
        guests.append(at_once + 1 + turn)
        shares.enter(guests[-1])
    raise AssertionError("it was never served")


def test_accounts_do_not_pile_up() -> None:
    class Key:
        pass

    shares: FairShares[Key] = FairShares()
    known: weakref.WeakSet[Key] = weakref.WeakSet()
    for _ in range(5_000):
        key = Key()
        known.add(key)
        shares.enter(key)
        shares.charge(key, 1.0)
        shares.leave(key)
    assert len(known) < 200
