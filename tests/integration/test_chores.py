"""Chores come round on both databases: one process at a time, again after its period, and after a death."""

from __future__ import annotations

import asyncio

import pytest

from voiceforge.errors import Unavailable
from voiceforge.infra.db import chores as rows
from voiceforge.infra.db.database import Database
from voiceforge.services.chores import Chore, Chores, OwnChores


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counted:
    def __init__(self) -> None:
        self.times = 0
        self.at_once = 0
        self.most_at_once = 0
        self.broken = False

    async def __call__(self) -> None:
        self.times += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.02)
        self.at_once -= 1
        if self.broken:
            raise RuntimeError("as the test wants it")


async def known(database: Database, chore: Chore, clock: Clock) -> None:
    async with database.transaction() as connection:
        await rows.add(connection, chore.name, clock())


async def test_of_many_processes_one_does_it_and_again_only_when_it_is_due(database: Database) -> None:
    clock, act = Clock(), Counted()
    chore = Chore("count", 10.0, act)
    await known(database, chore, clock)
    await known(database, chore, clock)  # as the next process does
    everyone = [Chores(database, [chore], clock=clock) for _ in range(8)]
    assert sum(await asyncio.gather(*(one.do_if_due(chore) for one in everyone))) == 1
    clock.now += 9.9
    assert sum(await asyncio.gather(*(one.do_if_due(chore) for one in everyone))) == 0
    clock.now += 0.2
    assert sum(await asyncio.gather(*(one.do_if_due(chore) for one in everyone))) == 1
    assert (act.times, act.most_at_once) == (2, 1)


async def test_who_died_over_it_is_waited_for_until_its_lease_ends(database: Database) -> None:
    clock, act = Clock(), Counted()
    chore = Chore("count", 10.0, act, lease_s=5.0)
    await known(database, chore, clock)
    async with database.transaction() as connection:
        token = await rows.claim(connection, chore.name, now=clock(), lease_s=chore.lease_s)
    assert token is not None
    heir = Chores(database, [chore], clock=clock)
    clock.now += 4.9
    assert not await heir.do_if_due(chore)
    clock.now += 0.2
    assert await heir.do_if_due(chore)
    async with database.transaction() as connection:  # the dead one was only slow
        assert not await rows.done(connection, chore.name, token, now=clock(), due_at=0.0)
    assert not await heir.do_if_due(chore)


async def test_one_that_fails_is_due_again_after_its_period(database: Database) -> None:
    clock, act = Clock(), Counted()
    act.broken = True
    chore = Chore("count", 10.0, act)
    await known(database, chore, clock)
    chores = Chores(database, [chore], clock=clock)
    with pytest.raises(RuntimeError):
        await chores.do_if_due(chore)
    assert not await chores.do_if_due(chore)
    clock.now += 10.1
    act.broken = False
    assert await chores.do_if_due(chore)


async def test_what_each_does_for_itself_is_done_soon_and_goes_on_after_it_failed() -> None:
    times, done = 0, asyncio.Event()

    async def act() -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise Unavailable("as the test wants it")
        if times == 2:
            raise RuntimeError("as the test wants it")
        done.set()

    running = asyncio.create_task(OwnChores([Chore("act", 0.01, act)]).run())
    await asyncio.wait_for(done.wait(), 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_goes_on_after_the_database_was_away(database: Database) -> None:
    act, done = Counted(), asyncio.Event()

    async def tell() -> None:
        await act()
        done.set()

    database.refuse("away")
    with pytest.raises(Unavailable):
        await Chores(database, []).do_if_due(Chore("tell", 60.0, tell))
    running = asyncio.create_task(Chores(database, [Chore("tell", 60.0, tell)]).run())
    await asyncio.sleep(0)
    database.refuse(None)
    await asyncio.wait_for(done.wait(), 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert act.times == 1
