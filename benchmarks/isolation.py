"""What one request, one client or one crash does to the others, and what a server holds while it is idle.

  idle      memory of the server with its model, all processes together, when nobody asks for anything
  workers   memory that another HTTP worker takes, idle and after requests
  health    how fast /health answers while 64 transcriptions are in flight
  leavers   CPU time spent for clients after they have left; the unit is that of a request of one window
  kill      an engine host killed while 16 clients wait: who fails, and when the next request is answered
  long      short requests beside a recording of three hours, against short requests alone
  unload    how much of what a model takes comes back when it is unloaded

Requests are sent from this process, the server is another. Nothing is answered from the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from figures import Bound, Report, Row, median, parser, row, significant
from health_probe import health_watched
from processes import Server, environment, serving
from recordings import write_long_recording, write_recording
from synthetic_whisper import build
from traffic import (
    QUANTILES,
    Clip,
    Prepared,
    Run,
    Send,
    client,
    closed_loop,
    mixed_clips,
    one_clip,
    prepare,
    quantile,
    sender,
)
from watches import TreeSample, sample, tree, tree_cpu_s

from voiceforge.services.samples import sample_recordings

_HOST = "voiceforge.main.engine_host"
_QUIET_CPU = 0.02  # cores
_QUIET_FOR_S = 1.0
_SECONDS_UNTIL_LEAVING = 0.7


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine to try this on. one_window: CPU time is told in these."""

    name: str
    settings: dict[str, str]
    one_window: Clip


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--parts", nargs="+", choices=list(_PARTS), default=list(_PARTS))
    made.add_argument(
        "--engines", nargs="+", choices=("embedded", "whisper"), default=["embedded", "whisper"]
    )
    made.add_argument("--in-flight", type=int, default=64, help="for health (default 64)")
    made.add_argument("--seconds", type=float, default=20.0, help="for health (default 20)")
    made.add_argument("--hours", type=float, default=3.0, help="of the long recording (default 3)")
    made.add_argument("--idle", type=float, default=10.0, help="seconds until memory is read (default 10)")
    made.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="of the server")
    args = made.parse_args()
    report = Report("isolation")
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        args.subjects = list(_subjects(args))
        for part in args.parts:
            print(f"{part} …", file=sys.stderr)
            before = len(report.rows)
            _PARTS[part](args, report)
            for found in report.rows[before:]:
                print(f"  {found.figure}: {found.ours}", file=sys.stderr)
    report.finish(args.json)


def _subjects(args: Namespace) -> Iterator[Subject]:
    clip = one_clip(sample_recordings()[0])
    if "embedded" in args.engines:
        yield Subject("embedded", {}, clip)
    if "whisper" in args.engines:
        model = build(args.folder / "whisper")
        yield Subject("whisper tiny.en, made up", {"VOICEFORGE_MODEL": str(model)}, clip)


@contextlib.contextmanager
def _server(args: Namespace, settings: dict[str, str] | None = None, *arguments: str) -> Iterator[Server]:
    chosen = dict(setting.split("=", 1) for setting in args.setting)
    env = environment(args.folder / "data", **(settings or {}), **chosen)
    with serving(env, *arguments) as server:
        yield server


# -- memory


def _idle(args: Namespace, report: Report) -> None:
    with _server(args) as server:
        time.sleep(args.idle)
        found = sample(server.pid)
    report.details["idle"] = {"rss_mb": found.rss_mb, "pss_mb": found.pss_mb, "processes": found.processes}
    report.rows += [
        row(
            f"idle server and what it started ({found.processes} processes), embedded model: memory",
            found.rss_mb,
            "MB",
            bound=Bound(350, "at most"),
        ),
        row("… what they share counted once", found.pss_mb, "MB"),
    ]


def _workers(args: Namespace, report: Report) -> None:
    """Memory that processes share is counted once: workers share what they have imported."""
    requests = prepare([one_clip(path) for path in sample_recordings()], ["native"])
    idle: dict[int, TreeSample] = {}
    used: dict[int, TreeSample] = {}
    for count in (1, 2, 4):
        with _server(args, None, "--workers", str(count)) as server:
            time.sleep(args.idle)
            idle[count] = sample(server.pid)
            _closed(server.url, requests, clients=8, count=16 * count)
            time.sleep(args.idle)
            used[count] = sample(server.pid)
    report.details["workers"] = {
        name: {count: {"rss_mb": one.rss_mb, "pss_mb": one.pss_mb} for count, one in found.items()}
        for name, found in (("idle", idle), ("after requests", used))
    }
    bound = Bound(120, "at most")
    report.rows += [
        row("a second HTTP worker: memory", idle[2].pss_mb - idle[1].pss_mb, "MB", bound=bound),
        row("… each further one", (idle[4].pss_mb - idle[2].pss_mb) / 2, "MB", bound=bound),
        row("… each further one, all after 16 requests", (used[4].pss_mb - used[2].pss_mb) / 2, "MB"),
        row("… the second, shared memory counted in each", idle[2].rss_mb - idle[1].rss_mb, "MB"),
        row("… each further one, likewise", (idle[4].rss_mb - idle[2].rss_mb) / 2, "MB"),
    ]


def _unload(args: Namespace, report: Report) -> None:
    """Of a second model; the default one stays."""
    model = build(args.folder / "whisper-to-unload")
    clip = one_clip(sample_recordings()[0])
    wait_s = 5.0
    settings = {"VOICEFORGE_MODELS__IDLE_UNLOAD_S": str(wait_s), "VOICEFORGE_MODELS__PRELOAD": f'["{model}"]'}
    with _server(args) as server:
        time.sleep(args.idle)
        without = sample(server.pid)
    with _server(args, settings) as server:
        _closed(server.url, prepare([clip], ["native"], model=str(model)), clients=4, count=8)
        loaded = sample(server.pid)
        deadline = time.monotonic() + 60 + wait_s
        while _hosts(server.pid) != 1 and time.monotonic() < deadline:
            time.sleep(0.5)
        time.sleep(1.0)
        after = sample(server.pid)
    taken, back = loaded.pss_mb - without.pss_mb, loaded.pss_mb - after.pss_mb
    report.details["unload"] = {
        "without_pss_mb": without.pss_mb,
        "loaded_pss_mb": loaded.pss_mb,
        "after_pss_mb": after.pss_mb,
    }
    report.rows.append(
        row(
            f"model of {significant(taken)} MB unloaded: share of its memory that came back",
            100 * back / taken,
            "%",
            bound=Bound(95, "at least"),
        )
    )


# -- one beside the others


def _health(args: Namespace, report: Report) -> None:
    clips = mixed_clips(args.speech, 32, longest_s=60.0)
    for subject in args.subjects:
        with _server(args, subject.settings) as server:
            _closed(server.url, prepare([subject.one_window], ["native"]), clients=2, count=4)
            with health_watched(server.url) as health:
                run = _for_seconds(server.url, prepare(clips, ["native", "raw"]), args)
        seconds = [probe.seconds for probe in health.found]
        times = {name: quantile(seconds, share) for name, share in QUANTILES.items()}
        failed = sum(1 for probe in health.found if probe.status != 200)
        report.details[f"health {subject.name}"] = {
            "probes": len(seconds),
            "failed": failed,
            "latency_s": times,
            "load": run.told(),
        }
        p99, worst = times["p99"], times["worst"]
        report.rows += [
            row(
                f"/health while {args.in_flight} transcriptions are in flight ({subject.name}): p99",
                1000 * p99 if p99 is not None else None,
                "ms",
                bound=Bound(100, "at most"),
            ),
            row("… the slowest", 1000 * worst if worst is not None else None, "ms"),
        ]
        if failed:
            report.rows.append(row("… not 200", failed, bound=Bound(0, "at most")))


def _for_seconds(url: str, requests: Sequence[Prepared], args: Namespace) -> Run:
    """Always as many in flight, for so long; then those that are left are given up."""

    async def run() -> Run:
        async with client(url) as http:
            send = sender(http)
            began = time.perf_counter()

            async def until_over(request: Prepared) -> str | None:
                left_s = began + args.seconds - time.perf_counter()
                if left_s <= 0:
                    return "given up"
                try:
                    return await asyncio.wait_for(send(request), left_s)
                except TimeoutError:
                    return "given up"

            return await closed_loop(until_over, requests, clients=args.in_flight, count=10 * args.in_flight)

    return asyncio.run(run())


def _leavers(args: Namespace, report: Report) -> None:
    recording = write_recording(args.folder, args.speech, 300.0)
    long = prepare([one_clip(recording.path)], ["raw"])[0]
    for subject in args.subjects:
        with _server(args, subject.settings) as server:
            one = prepare([subject.one_window], ["raw"])
            _closed(server.url, one, clients=1, count=2)
            windows, burnt = [], []
            for _ in range(args.rounds):
                _until_quiet(server.pid)
                before = tree_cpu_s(server.pid)
                _closed(server.url, one, clients=1, count=1)
                _until_quiet(server.pid)
                windows.append(tree_cpu_s(server.pid) - before)
                burnt.append(_cpu_after_leaving(server, long))
        report.details[f"leavers {subject.name}"] = {
            "one_window_cpu_s": windows,
            "after_leaving_cpu_s": burnt,
        }
        report.rows += [
            row(
                f"CPU for a client that left ({subject.name}), in windows",
                median(burnt) / median(windows),
                reference=f"a window {significant(1000 * median(windows))} ms",
                bound=Bound(1, "at most"),
            ),
            row("… at most", max(burnt) / median(windows)),
        ]


def _cpu_after_leaving(server: Server, request: Prepared) -> float:
    """A client that leaves while its recording is decoded; CPU-seconds from then until nothing is done."""

    async def leave() -> None:
        async with client(server.url) as http:
            task = asyncio.ensure_future(sender(http)(request))
            await asyncio.sleep(_SECONDS_UNTIL_LEAVING)
            if task.done():
                raise SystemExit("the recording was done before its client could leave: take a longer one")
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(leave())
    before = tree_cpu_s(server.pid)
    _until_quiet(server.pid)
    return tree_cpu_s(server.pid) - before


def _until_quiet(pid: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        before, began = tree_cpu_s(pid), time.perf_counter()
        time.sleep(_QUIET_FOR_S)
        if tree_cpu_s(pid) - before <= _QUIET_CPU * (time.perf_counter() - began):
            return
    raise SystemExit("the server does not come to rest")


def _kill(args: Namespace, report: Report) -> None:
    for subject in args.subjects:
        requests = prepare([subject.one_window], ["native"])
        failures: list[dict[str, int]] = []
        back: list[float] = []
        again: list[float] = []
        with _server(args, subject.settings) as server:
            if _hosts(server.pid) == 0:
                report.rows.append(Row(f"engine host killed ({subject.name})", "–", "there is none"))
                continue
            for _ in range(args.rounds):
                run, back_s, again_s = asyncio.run(_with_kill(server, requests))
                failures.append(run.failures)
                back.append(back_s)
                again.append(again_s)
        report.details[f"kill {subject.name}"] = {
            "first_answer_s": back,
            "next_request_s": again,
            "failures": failures,
        }
        report.rows += [
            row(
                f"engine host killed, 16 clients waiting ({subject.name}): it answers again after",
                median(back),
                "s",
                bound=Bound(2, "at most"),
            ),
            row("… the next request, behind those that wait, after", median(again), "s"),
            row("… requests that failed", sum(sum(f.values()) for f in failures), bound=Bound(0, "at most")),
        ]


async def _with_kill(server: Server, requests: Sequence[Prepared]) -> tuple[Run, float, float]:
    """What became of the requests, and how long after the kill another host had answered one of them, and one
    that came after it."""
    async with client(server.url) as http:
        send: Send = sender(http)
        began = time.perf_counter()
        load = asyncio.ensure_future(closed_loop(send, requests, clients=16, count=48))
        await asyncio.sleep(1.0)
        dead = {process.pid for process in _host_processes(server.pid)}
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
        killed_s = time.perf_counter() - began
        next_one = asyncio.ensure_future(_answered(send, requests[0]))
        await asyncio.to_thread(_wait_for_another_host, server.pid, dead)
        renewed_s = time.perf_counter() - began
        again_s = await next_one - began - killed_s
        run = await load
        first_s = min(outcome.ended_s for outcome in run.answered if outcome.ended_s > renewed_s)
        return run, first_s - killed_s, again_s


def _wait_for_another_host(pid: int, dead: set[int]) -> None:
    while not {process.pid for process in _host_processes(pid)} - dead:
        time.sleep(0.02)


async def _answered(send: Send, request: Prepared) -> float:
    """When it was, by `time.perf_counter`; it is sent until it is."""
    while await send(request) is not None:
        pass
    return time.perf_counter()


def _long(args: Namespace, report: Report) -> None:
    path = args.folder / "long.flac"
    seconds = write_long_recording(path, args.speech, args.hours * 3600)
    long = prepare([Clip(path.name, path.read_bytes(), seconds)], ["raw"])[0]
    short = prepare(mixed_clips(args.speech, 24, longest_s=10.0), ["native"])
    count = 2 * len(short)
    with _server(args) as server:
        alone, beside = asyncio.run(_beside(server.url, long, short, count))
    report.details["long"] = {"audio_s": seconds, "alone": alone.told(), "beside": beside.told()}
    for name in ("p50", "p95"):
        before, now = alone.latency_s(QUANTILES[name]), beside.latency_s(QUANTILES[name])
        ratio = now / before if now and before else None
        report.rows.append(
            row(
                f"short requests beside one of {seconds / 3600:.1f} h: {name} against alone"
                if name == "p50"
                else f"… {name}",
                ratio,
                reference=f"{significant(before or 0.0)} s alone",
                bound=Bound(1.5, "at most"),
            )
        )


async def _beside(url: str, long: Prepared, short: Sequence[Prepared], count: int) -> tuple[Run, Run]:
    """Short ones one after another, alone and then while the long one is decoded."""
    async with client(url) as http:
        send = sender(http)
        await closed_loop(send, short, clients=1, count=4)
        alone = await closed_loop(send, short, clients=1, count=count)
        task = asyncio.ensure_future(send(long))
        await asyncio.sleep(3.0)  # uploaded, and its first windows queued
        beside = await closed_loop(send, short, clients=1, count=count)
        if task.done():
            raise SystemExit(f"the long recording was done too early: {task.result() or 'take a longer one'}")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return alone, beside


# -- shared


def _closed(url: str, requests: Sequence[Prepared], *, clients: int, count: int) -> Run:
    async def run() -> Run:
        async with client(url) as http:
            return await closed_loop(sender(http), requests, clients=clients, count=count)

    done = asyncio.run(run())
    if done.failures:
        raise SystemExit(f"requests failed: {done.failures}")
    return done


def _host_processes(pid: int) -> list[psutil.Process]:
    found = []
    for process in tree(pid):
        with contextlib.suppress(psutil.Error):
            if _HOST in process.cmdline():
                found.append(process)
    return found


def _hosts(pid: int) -> int:
    return len(_host_processes(pid))


_PARTS: dict[str, Callable[[Namespace, Report], None]] = {
    "idle": _idle,
    "workers": _workers,
    "health": _health,
    "leavers": _leavers,
    "kill": _kill,
    "long": _long,
    "unload": _unload,
}


if __name__ == "__main__":
    main()
