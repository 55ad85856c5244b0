"""Calls from Celery's threads: what passes is waited for, the rest is told."""

from __future__ import annotations

import asyncio

import pytest

from voiceforge.errors import InvalidRequest, StorageFull, Unavailable, VoiceForgeError
from voiceforge.worker.calls import Calls


class Failing:
    """Answers once it has failed so."""

    def __init__(self, *failures: VoiceForgeError) -> None:
        self.failures = list(failures)
        self.arguments: list[str] = []

    async def __call__(self, argument: str) -> bool:
        self.arguments.append(argument)
        if self.failures:
            raise self.failures.pop(0)
        return True


@pytest.mark.parametrize("failure", [Unavailable("away"), StorageFull("no room")], ids=str)
async def test_a_database_that_is_away_or_full_is_waited_for(failure: VoiceForgeError) -> None:
    call = Failing(failure)
    assert await asyncio.to_thread(Calls(asyncio.get_running_loop()).make, call, "tr_1")
    assert call.arguments == ["tr_1", "tr_1"]


async def test_what_does_not_pass_is_told() -> None:
    call = Failing(InvalidRequest("no"))
    with pytest.raises(InvalidRequest):
        await asyncio.to_thread(Calls(asyncio.get_running_loop()).make, call, "tr_1")
    assert call.arguments == ["tr_1"]
