"""Workers that one process forks and another adopts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psutil
import pytest

from voiceforge.main.nursery import Adopted, hatched

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing is forked")

OBEYS = """
import os, sys
from voiceforge.main.nursery import hatch
sys.exit(int(os.read(hatch(*map(int, sys.argv[1:])), 9) or 7))
"""
HAS_THREADS = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()" + OBEYS

Hatch = Callable[[str, int], tuple[list[Adopted], list[int]]]


@pytest.fixture
def hatch() -> Iterator[Hatch]:
    with ExitStack() as stack:

        def made(program: str, count: int) -> tuple[list[Adopted], list[int]]:
            pipes = [os.pipe() for _ in range(count)]
            command = [sys.executable, "-c", program]
            workers = hatched(command, [order for order, _ in pipes], inherited=[], env=os.environ)
            for order, lifeline in pipes:
                os.close(order)
                stack.callback(os.close, lifeline)
            return workers, [lifeline for _, lifeline in pipes]

        yield made


def test_each_worker_has_an_order_of_its_own_and_is_a_child_like_any_other(hatch: Hatch) -> None:
    workers, lifelines = hatch(OBEYS, 3)
    assert [psutil.Process(worker.pid).ppid() for worker in workers] == [os.getpid()] * 3
    assert len({os.getpgid(worker.pid) for worker in workers}) == 3
    assert [worker.poll() for worker in workers] == [None] * 3
    os.write(lifelines[1], b"3")
    assert workers[1].wait() == 3
    assert workers[0].poll() is None
    os.write(lifelines[0], b"0")
    assert workers[0].wait() == 0
    workers[2].kill()
    assert workers[2].wait() == -9
    workers[2].kill()  # its number may be somebody else's by now: it is left alone
    assert workers[2].poll() == -9


def test_a_process_with_threads_forks_nobody(hatch: Hatch) -> None:
    assert hatch(HAS_THREADS, 2)[0] == []


def test_a_nursery_that_breaks_down_leaves_those_it_has_made(hatch: Hatch) -> None:
    assert hatch("raise SystemExit(1)", 2)[0] == []
