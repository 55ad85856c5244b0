"""How much of many uploads one turn of the event loop takes in, and who passes them."""

from __future__ import annotations

import asyncio

from voiceforge.api.http.turns import TakeTurns, Turns


class LoopTurns:
    """Counts turns of the loop, as a callback that comes back in each."""

    def __init__(self) -> None:
        self.now = 0
        self._next()

    def _next(self) -> None:
        self.now += 1
        self._handle = asyncio.get_running_loop().call_soon(self._next)

    def stop(self) -> None:
        self._handle.cancel()


async def test_each_turn_lets_so_many_go_on_in_the_order_they_came() -> None:
    turns, loop_turns = Turns(per_turn=3), LoopTurns()
    went: list[tuple[int, int]] = []

    async def go(number: int) -> None:
        await turns.mine()
        went.append((loop_turns.now, number))

    await asyncio.gather(*(go(number) for number in range(20)))
    loop_turns.stop()
    assert [number for _, number in went] == list(range(20))
    by_turn = [sum(1 for turn, _ in went if turn == t) for t in {turn for turn, _ in went}]
    assert max(by_turn) == 3
    assert len(by_turn) == 7


async def test_whoever_leaves_while_waiting_takes_nobodys_turn() -> None:
    turns = Turns(per_turn=1)
    tasks = [asyncio.create_task(turns.mine()) for _ in range(6)]
    await asyncio.sleep(0)
    for task in tasks[1:5]:
        task.cancel()
    async with asyncio.timeout(10):
        await tasks[5]


async def test_after_a_pause_nobody_waits() -> None:
    turns = Turns(per_turn=1)
    for _ in range(3):
        waiting = turns.mine()
        try:
            waiting.send(None)  # goes on at once: there is nothing to wait for
        except StopIteration:
            pass
        else:
            raise AssertionError("it waited, though nobody else was there")
        for _ in range(3):
            await asyncio.sleep(0)


async def test_requests_without_a_body_pass_uploads_that_wait() -> None:
    order: list[str] = []

    async def app(scope, receive, send):
        if scope["method"] == "POST":
            while (await receive()).get("more_body"):
                pass
        order.append(scope["path"])

    async def upload():
        pieces = [{"type": "http.request", "body": b"x", "more_body": n < 4} for n in range(5)]

        async def receive():
            return pieces.pop(0)

        await taking(({"type": "http", "method": "POST", "path": "upload"}), receive, None)

    taking = TakeTurns(app, Turns(per_turn=1), few=0)
    uploads = [asyncio.create_task(upload()) for _ in range(10)]
    await asyncio.sleep(0)
    await taking({"type": "http", "method": "GET", "path": "health"}, None, None)
    await asyncio.gather(*uploads)
    assert order == ["health"] + ["upload"] * 10
