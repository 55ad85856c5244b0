"""Engine hosts as real child processes: shared, killed, stopped, grown, renewed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from voiceforge.errors import (
    EngineCrashed,
    EngineFailed,
    ModelNotInstalled,
    Overloaded,
    ShuttingDown,
    VoiceForgeError,
)
from voiceforge.infra.enginehost.base import EngineSpec
from voiceforge.infra.enginehost.child import NICENESS
from voiceforge.infra.enginehost.child_process import ChildProcessHosts
from voiceforge.infra.enginehost.keeper import HostKeeper, OneUser, WatchRules
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import DecodeOptions, Hypothesis
from voiceforge.speech.engines.device import RunsOn
from voiceforge.speech.engines.tickets import BatcherLimits, DecodeQueue, Priority
from voiceforge.testing.fake_engine_host import (
    BUSY_LOADING,
    COLD,
    COMMAND,
    DIE,
    DIES_LOADING,
    FAIL,
    GROW,
    GROWN_BYTES,
    HANG,
    NOT_INSTALLED,
    SAY_IF_WARM,
    SLOW,
    STOPS_LOADING,
    WARM,
    fake_spec,
)
from voiceforge.testing.processes import wait_until_gone

PLAIN = DecodeOptions()
LONGEST_WAIT_S = 30
hasty = pytest.mark.parametrize("rules", [WatchRules(silent_s=1.0, batch_s=1.5)], ids=["hasty"])
"""For tests of hosts that hang."""


def second(count: float = 1.0) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.full(int(count * SAMPLE_RATE_HZ), 0.1, np.float32)


def told(prompt: str) -> DecodeOptions:
    return DecodeOptions(prompt=prompt)


def text(future: Future[Hypothesis]) -> str:
    return " ".join(segment.text for segment in future.result(LONGEST_WAIT_S).segments)


@dataclass
class Seen:
    """Observes a queue and a keeper."""

    batches: list[int] = field(default_factory=list)
    waits: list[Priority] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def batch_done(self, model: str, rows: int, audio_s: float, seconds: float) -> None:
        with self.news:
            self.batches.append(rows)
            self.news.notify_all()

    def window_waited(self, model: str, priority: Priority, seconds: float) -> None:
        self.waits.append(priority)

    def host_started(self, model: str, *, again: bool) -> None:
        with self.news:
            self.starts.append(again)
            self.news.notify_all()

    def wait_for_starts(self, count: int) -> None:
        with self.news:
            assert self.news.wait_for(lambda: len(self.starts) >= count, LONGEST_WAIT_S)

    def wait_for_batches(self, count: int) -> None:
        with self.news:
            assert self.news.wait_for(lambda: len(self.batches) >= count, LONGEST_WAIT_S)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def rules() -> WatchRules:
    """Those of a real server: a host that is only slow, on a busy machine, is left alone."""
    return WatchRules()


@pytest.fixture
def keeper(seen: Seen, rules: WatchRules) -> Iterator[HostKeeper]:
    keeper = HostKeeper(COMMAND, rules=rules)
    yield keeper
    keeper.close()


@pytest.fixture
def hosts(keeper: HostKeeper, seen: Seen) -> ChildProcessHosts:
    return ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id), seen)


@pytest.fixture
def queue(hosts: ChildProcessHosts, seen: Seen) -> Iterator[DecodeQueue]:
    queue = hosts.start("fake", seen)
    yield queue
    queue.close(0)


def pid_of(keeper: HostKeeper, model_id: str = "fake") -> int:
    pid = keeper.pid(model_id)
    assert pid is not None
    return pid


def test_windows_are_recognised_in_another_process_and_its_metrics_come_back(
    queue: DecodeQueue, keeper: HostKeeper, seen: Seen, hosts: ChildProcessHosts
) -> None:
    ticket = queue.open(Priority.BULK)
    futures = [ticket.submit(second(n), PLAIN) for n in (1, 2, 3)]
    assert [len(text(future).split()) for future in futures] == [2, 4, 6]
    seen.wait_for_batches(1)
    assert seen.waits == [Priority.BULK] * 3
    assert pid_of(keeper) != os.getpid()
    assert queue.model.revision == "1"
    assert hosts.runs_on("fake") == RunsOn("fake device", ("a wish was not met",))
    size = hosts.memory_bytes("fake")
    assert size is not None
    assert size > 10 << 20


def test_a_host_that_is_killed_costs_nobody_an_answer(
    queue: DecodeQueue, keeper: HostKeeper, seen: Seen
) -> None:
    ticket = queue.open()
    futures = [ticket.submit(second(1 + n / 2), told(SLOW)) for n in range(6)]
    seen.wait_for_starts(1)
    os.kill(pid_of(keeper), signal.SIGKILL)
    assert [len(text(future).split()) for future in futures] == [2 + n for n in range(6)]
    assert seen.starts == [False, True]
    assert len(text(ticket.submit(second(), PLAIN)).split()) == 2
    assert len(text(queue.open().submit(second(), PLAIN)).split()) == 2


def test_an_idle_host_that_is_killed_is_started_again_by_itself(
    queue: DecodeQueue, keeper: HostKeeper, seen: Seen
) -> None:
    os.kill(pid_of(keeper), signal.SIGKILL)
    seen.wait_for_starts(2)
    assert text(queue.open().submit(second(), PLAIN)) == "w1 w2"


@hasty
def test_a_host_that_is_stopped_is_replaced(queue: DecodeQueue, keeper: HostKeeper, seen: Seen) -> None:
    ticket = queue.open()
    stopped = pid_of(keeper)
    os.kill(stopped, signal.SIGSTOP)
    assert text(ticket.submit(second(), PLAIN)) == "w1 w2"
    assert not psutil.pid_exists(stopped)


def test_the_window_that_kills_hosts_fails_alone(queue: DecodeQueue, seen: Seen) -> None:
    innocent = [queue.open().submit(second(2), told(SLOW)) for _ in range(4)]
    culprit = queue.open().submit(second(), told(DIE))
    later = [queue.open().submit(second(3), PLAIN) for _ in range(4)]
    with pytest.raises(EngineCrashed) as failure:
        culprit.result(LONGEST_WAIT_S)
    assert failure.value.retryable
    assert failure.value.retry_after_s
    assert [text(future) for future in innocent] == ["w1 w2 w3 w4"] * 4
    assert [text(future) for future in later] == ["w1 w2 w3 w4 w5 w6"] * 4
    seen.wait_for_starts(3)
    assert seen.starts == [False, True, True]


@hasty
def test_a_batch_that_never_ends_is_a_crash(queue: DecodeQueue) -> None:
    culprit = queue.open().submit(second(), told(HANG))
    innocent = queue.open().submit(second(2), PLAIN)
    with pytest.raises(EngineCrashed):
        culprit.result(LONGEST_WAIT_S)
    assert text(innocent) == "w1 w2 w3 w4"


def test_what_an_engine_says_of_a_window_arrives_as_it_was_said(queue: DecodeQueue, seen: Seen) -> None:
    with pytest.raises(EngineFailed, match="as it was told"):
        queue.open().submit(second(), told(FAIL)).result(LONGEST_WAIT_S)
    assert seen.starts == [False]


def test_a_queue_that_is_full_says_so_across_the_border(keeper: HostKeeper, seen: Seen) -> None:
    limits = BatcherLimits(max_tickets=2)
    hosts = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, limits=limits))
    queue = hosts.start("fake", seen)
    kept, _ = queue.open(), queue.open()
    with pytest.raises(Overloaded) as refusal:
        queue.open()
    assert refusal.value.retry_after_s
    kept.close()
    queue.open()
    queue.close(0)


def test_closing_a_ticket_frees_its_place_and_its_windows(queue: DecodeQueue) -> None:
    ticket = queue.open()
    futures = [ticket.submit(second(), told(SLOW)) for _ in range(40)]
    ticket.close()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(LONGEST_WAIT_S)
    assert queue.open_tickets == 0
    assert queue.waiting() == dict.fromkeys(Priority, 0)
    with pytest.raises(CancelledError):
        ticket.submit(second(), PLAIN).result(LONGEST_WAIT_S)
    assert text(queue.open().submit(second(), PLAIN)) == "w1 w2"


def test_a_window_that_its_owner_cancels_is_not_decoded(queue: DecodeQueue, seen: Seen) -> None:
    ticket = queue.open()
    before_it = [ticket.submit(second(), told(SLOW)) for _ in range(40)]
    unwanted = ticket.submit(second(), told(DIE))  # it would end the host
    assert unwanted.cancel()
    assert [text(future) for future in before_it] == ["w1 w2"] * 40
    assert text(ticket.submit(second(), PLAIN)) == "w1 w2"
    assert queue.waiting() == dict.fromkeys(Priority, 0)
    assert len(seen.starts) == 1


def test_a_model_that_cannot_be_loaded_says_why(keeper: HostKeeper, seen: Seen) -> None:
    missing = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, NOT_INSTALLED))
    with pytest.raises(ModelNotInstalled) as failure:
        missing.start("missing", seen)
    assert (failure.value.field, failure.value.choices) == ("model", ("fake",))
    dying = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, DIES_LOADING))
    with pytest.raises(EngineCrashed):
        dying.start("dying", seen)


@hasty
def test_a_host_that_cannot_come_back_fails_its_requests_and_the_queue_says_it_is_over(
    keeper: HostKeeper, seen: Seen
) -> None:
    paths = iter([Path("fake")])
    hosts = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, next(paths, NOT_INSTALLED)))
    queue = hosts.start("fake", seen)
    waiting = queue.open().submit(second(), told(HANG))
    with pytest.raises(ModelNotInstalled):
        waiting.result(LONGEST_WAIT_S)
    assert not queue.usable
    with pytest.raises(ModelNotInstalled):
        queue.open()
    queue.close()


def test_requests_outlive_several_hosts_that_are_killed_while_they_load(
    keeper: HostKeeper, seen: Seen
) -> None:
    paths = iter([Path("fake"), DIES_LOADING, DIES_LOADING, DIES_LOADING])
    hosts = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, next(paths, Path("fake"))), seen)
    queue = hosts.start("fake", seen)
    ticket = queue.open()
    waiting = [ticket.submit(second(n), told(SLOW)) for n in (1, 2, 3, 4, 5, 6)]
    os.kill(pid_of(keeper), signal.SIGKILL)
    late = queue.open()  # while there is no host
    assert [len(text(future).split()) for future in waiting] == [2, 4, 6, 8, 10, 12]
    assert text(late.submit(second(), PLAIN)) == "w1 w2"
    assert seen.starts == [False, True]
    queue.close(0)


def test_only_a_host_that_replaces_a_lost_one_is_not_warmed_up(
    queue: DecodeQueue, keeper: HostKeeper, hosts: ChildProcessHosts
) -> None:
    ticket = queue.open()
    assert text(ticket.submit(second(), told(SAY_IF_WARM))) == WARM
    os.kill(pid_of(keeper), signal.SIGKILL)
    assert text(ticket.submit(second(), told(SAY_IF_WARM))) == COLD
    assert hosts.renew("fake")
    assert text(ticket.submit(second(), told(SAY_IF_WARM))) == WARM


def test_a_host_has_a_lower_priority_than_those_who_use_it(queue: DecodeQueue, keeper: HostKeeper) -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid_of(keeper)) == min(19, usual + NICENESS)


def test_a_model_whose_hosts_end_whenever_they_load_fails_its_requests(
    keeper: HostKeeper, seen: Seen
) -> None:
    paths = iter([Path("fake")])
    hosts = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, next(paths, DIES_LOADING)), seen)
    queue = hosts.start("fake", seen)
    waiting = queue.open().submit(second(), told(HANG))
    os.kill(pid_of(keeper), signal.SIGKILL)
    with pytest.raises(EngineCrashed) as failure:
        waiting.result(LONGEST_WAIT_S)
    assert failure.value.retry_after_s
    assert not queue.usable
    assert seen.starts == [False]
    queue.close()


@pytest.mark.parametrize("rules", [WatchRules(stalled_s=2.0)])
def test_a_host_that_is_stopped_while_it_loads_is_replaced(keeper: HostKeeper, seen: Seen) -> None:
    paths = iter([STOPS_LOADING])
    hosts = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, next(paths, Path("fake"))), seen)
    queue = hosts.start("fake", seen)
    assert text(queue.open().submit(second(), PLAIN))
    queue.close(0)


@pytest.mark.parametrize("rules", [WatchRules(stalled_s=2.0)])
def test_a_host_that_is_always_stopped_while_it_loads_is_given_up(keeper: HostKeeper, seen: Seen) -> None:
    others = set(psutil.Process().children())
    hosts = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, STOPS_LOADING), seen)
    with pytest.raises(EngineCrashed):
        hosts.start("fake", seen)
    assert set(psutil.Process().children()) <= others


@pytest.mark.parametrize("rules", [WatchRules(stalled_s=2.0)])
def test_a_host_that_takes_its_time_to_load_may(keeper: HostKeeper, seen: Seen) -> None:
    hosts = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, BUSY_LOADING), seen)
    hosts.start("fake", seen).close(0)
    assert seen.starts == [False]


def test_two_users_share_one_host_that_ends_with_the_last(keeper: HostKeeper, seen: Seen) -> None:
    users = [
        ChildProcessHosts(OneUser(keeper, n), lambda model_id: fake_spec(model_id), seen) for n in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:
        queues = list(pool.map(lambda user: user.start("fake", seen), users))
    assert seen.starts == [False]
    pid = pid_of(keeper)
    queues[0].close(0)
    assert text(queues[1].open().submit(second(), PLAIN)) == "w1 w2"
    assert keeper.pid("fake") == pid
    queues[1].close(0)
    assert keeper.pid("fake") is None
    assert not psutil.pid_exists(pid)


def test_closing_a_queue_lets_open_requests_finish(hosts: ChildProcessHosts, seen: Seen) -> None:
    queue = hosts.start("fake", seen)
    ticket = queue.open()
    future = ticket.submit(second(), told(SLOW))
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(queue.close, LONGEST_WAIT_S)
        assert text(future) == "w1 w2"
        assert not closing.done()
        ticket.close()
        closing.result(LONGEST_WAIT_S)
    with pytest.raises(ShuttingDown):
        queue.open()


def test_a_renewed_host_takes_over_without_a_failed_request(
    queue: DecodeQueue, hosts: ChildProcessHosts, keeper: HostKeeper
) -> None:
    before = pid_of(keeper)
    ticket = queue.open()
    futures = [ticket.submit(second(1 + n / 2), told(SLOW)) for n in range(12)]
    assert hosts.renew("fake")
    assert [len(text(future).split()) for future in futures] == [2 + n for n in range(12)]
    assert pid_of(keeper) != before
    assert not psutil.pid_exists(before)
    assert text(ticket.submit(second(), PLAIN)) == "w1 w2"


def test_a_renewal_that_fails_leaves_the_old_host(keeper: HostKeeper, seen: Seen) -> None:
    paths = iter([Path("fake"), NOT_INSTALLED])
    hosts = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, next(paths)))
    queue = hosts.start("fake", seen)
    with pytest.raises(ModelNotInstalled):
        hosts.renew("fake")
    assert text(queue.open().submit(second(), PLAIN)) == "w1 w2"
    queue.close(0)


def test_a_host_that_has_grown_starts_anew_between_two_batches(seen: Seen) -> None:
    rules = WatchRules(max_rss_bytes=GROWN_BYTES)
    keeper = HostKeeper(COMMAND, rules=rules)
    queue = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id), seen).start("fake", seen)
    ticket = queue.open()
    assert text(ticket.submit(second(), told(GROW))) == "w1 w2"
    seen.wait_for_starts(2)
    assert text(ticket.submit(second(), PLAIN)) == "w1 w2"
    size = keeper.memory_bytes("fake")
    assert size is not None
    assert size < GROWN_BYTES
    queue.close(0)
    keeper.close()


def test_closing_the_keeper_ends_a_host_that_is_still_loading(seen: Seen) -> None:
    keeper = HostKeeper((sys.executable, "-c", "import sys; sys.stdin.buffer.read()"))
    hosts = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id), seen)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(hosts.start, "fake", seen)
        children = psutil.Process()
        while not children.children():
            assert not starting.done()
        keeper.close()
        with pytest.raises(ShuttingDown):
            starting.result(LONGEST_WAIT_S)


PARENT = """
import os, signal, sys
from voiceforge.infra.enginehost.keeper import HostKeeper
from voiceforge.testing.fake_engine_host import COMMAND, fake_spec
keeper = HostKeeper(COMMAND)
keeper.acquire(fake_spec())
print("pid", keeper.pid("fake"), flush=True)
sys.stdin.read()
"""


def test_no_host_outlives_a_parent_that_was_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        said = next(line for line in parent.stdout if line.startswith("pid "))
        host = psutil.Process(int(said.split()[1]))
        parent.kill()
    wait_until_gone([host])


def test_a_spec_that_cannot_be_made_says_why(keeper: HostKeeper) -> None:
    def cannot(model_id: str) -> EngineSpec:
        raise ModelNotInstalled("nothing is here")

    with pytest.raises(VoiceForgeError, match="nothing is here"):
        ChildProcessHosts(keeper, cannot).start("fake", Seen())
