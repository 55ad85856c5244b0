"""Who is given up, and who is not."""

from __future__ import annotations

import asyncio
import time

import pytest

from voiceforge.infra.limiter.silence import Silence

LONGEST_S = 0.2


async def test_a_server_that_says_nothing_is_given_up() -> None:
    silence = Silence(LONGEST_S)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with silence.listening():
            await asyncio.Event().wait()
    assert time.monotonic() - began >= LONGEST_S - 0.03


async def test_one_that_answers_others_is_waited_for() -> None:
    silence = Silence(LONGEST_S)

    async def answered() -> None:
        for _ in range(8):
            await asyncio.sleep(LONGEST_S / 4)
            async with silence.listening():
                pass

    others = asyncio.create_task(answered())
    async with silence.listening():
        await others


async def test_one_that_we_had_no_time_to_hear_is_waited_for() -> None:
    silence, answer = Silence(LONGEST_S), asyncio.Event()
    asyncio.get_running_loop().call_later(LONGEST_S / 2, answer.set)
    async with silence.listening():
        await asyncio.sleep(0)
        time.sleep(2 * LONGEST_S)  # noqa: ASYNC251 - the loop has other things to do
        await answer.wait()


async def test_whoever_leaves_is_not_told_of_a_silence() -> None:
    silence = Silence(LONGEST_S)

    async def waits() -> None:
        async with silence.listening():
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
