"""A server under steady load for a long time: its memory and its latency must stay where they are.

Arrivals at 70 % of what the server was just found to do, of mixed lengths, by every door; some recordings
are broken, and some clients leave before they are answered. After it has settled (the first fifth of the
time), a line is laid through the medians of the minutes (Theil-Sen: the median of the slopes between any two,
which a few odd minutes do not move). Flat means: from one end of that line to the other, memory grows by no
more than 5 % of its median, and the median latency by no more than 20 % of its own.

    python benchmarks/soak.py --minutes 30 --json build/bench/soak.json
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from figures import Report, Row, median, parser, row, significant
from health_probe import health_watched
from load_picture import draw_soak, per_minute
from processes import environment, serving
from traffic import (
    DOORS,
    QUANTILES,
    Prepared,
    Run,
    Send,
    client,
    closed_loop,
    mixed_clips,
    open_loop,
    prepare,
    quantile,
    sender,
)
from watches import TreeSample, watched

_SETTLING = 0.2
_MEMORY_MAY_GROW = 0.05
_LATENCY_MAY_GROW = 0.20
_TROUBLE_EVERY = 20
_RAW = {"Content-Type": "application/octet-stream", "Cache-Control": "no-store"}
_BROKEN = b"fLaC" + random.Random(0).randbytes(100_000)
_LEAVES_AFTER_S = 0.3
_CAPACITY_CLIENTS = 16
_MEMORY_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through what was measured. change: between its ends, as a share of the median."""

    median: float
    slope_per_hour: float
    change: float


def main() -> None:
    made = parser(__doc__, rounds=1)
    made.add_argument("--minutes", type=float, default=30.0, help="(default 30)")
    made.add_argument("--share", type=float, default=0.7, help="of the capacity (default 0.7)")
    made.add_argument("--rate", type=float, help="requests a second, instead of a share of the capacity")
    made.add_argument("--clips", type=int, default=48, help="different recordings (default 48)")
    made.add_argument("--longest", type=float, default=120.0, help="of them, in seconds (default 120)")
    made.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="of the server")
    made.add_argument("--serve", action="append", default=[], metavar="ARGUMENT", help="of `serve`")
    made.add_argument("--picture", type=Path, metavar="FILE", help="(default: beside --json)")
    args = made.parse_args()
    requests = prepare(mixed_clips(args.speech, args.clips, longest_s=args.longest), list(DOORS))
    chosen = dict(setting.split("=", 1) for setting in args.setting)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        with (
            serving(environment(data_dir, **chosen), *args.serve) as server,
            watched(server.pid, _MEMORY_EVERY_S) as memory,
            health_watched(server.url, per_second=1) as health,
        ):
            before_s, per_second, run = asyncio.run(_soak(args, server.url, requests))
        leftovers = len(list((data_dir / "tmp").iterdir()))
    samples = [replace(sample, at_s=sample.at_s - before_s) for sample in memory.samples]
    answered = Run(tuple(outcome for outcome in run.outcomes if outcome.door in DOORS), run.wall_s)
    report = Report("soak")
    _judge(report, args, per_second, answered, run, [s for s in samples if s.at_s >= 0])
    health_s = quantile([probe.seconds for probe in health.found], 0.99)
    report.rows += [
        row("… /health meanwhile, p99", 1000 * health_s if health_s is not None else None, "ms"),
        row("… temporary files left", leftovers),
    ]
    report.finish(args.json)
    picture = args.picture or (args.json and args.json.with_suffix(".png"))
    if picture:
        title = f"{args.minutes:g} minutes, {significant(per_second)} requests a second"
        draw_soak(title, answered, samples, _SETTLING * args.minutes * 60, picture)
        print(f"picture: {picture}", file=sys.stderr)


async def _soak(args: Namespace, url: str, requests: Sequence[Prepared]) -> tuple[float, float, Run]:
    """Seconds until it began, requests per second, and what became of them."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with client(url) as http:
        send = sender(http)
        per_second = args.rate
        if per_second is None:
            await closed_loop(send, requests, clients=2, count=4)
            most = await closed_loop(send, requests, clients=_CAPACITY_CLIENTS, count=2 * len(requests))
            per_second = args.share * len(most.answered) / most.wall_s
        print(f"{significant(per_second)} requests a second for {args.minutes:g} min", file=sys.stderr)
        before_s = loop.time() - started
        mixed = list(_with_trouble(requests))
        seconds = args.minutes * 60
        return (
            before_s,
            per_second,
            await open_loop(_bearing(send), mixed, per_second=per_second, seconds=seconds),
        )


def _with_trouble(requests: Sequence[Prepared]) -> Iterator[Prepared]:
    """As many rounds of the requests as it takes for each to be one that is broken, or left alone, once."""
    for number, request in enumerate(itertools.chain.from_iterable([requests] * _TROUBLE_EVERY)):
        if number % _TROUBLE_EVERY == 7:
            yield Prepared("broken", "/v1/transcriptions", _RAW, _BROKEN, 0.0)
        elif number % _TROUBLE_EVERY == 17:
            yield replace(request, door="leaves")
        else:
            yield request


def _bearing(send: Send) -> Send:
    """Trouble that ends as it should is no failure."""

    async def bear(request: Prepared) -> str | None:
        if request.door == "leaves":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(send(request), _LEAVES_AFTER_S)
            return None
        failure = await send(request)
        if request.door == "broken":
            refused = failure is not None and failure.startswith("4") and not failure.startswith("429")
            return None if refused else f"broken file: {failure or 'answered'}"
        return failure

    return bear


def _judge(
    report: Report, args: Namespace, per_second: float, answered: Run, run: Run, samples: Sequence[TreeSample]
) -> None:
    settled_min = _SETTLING * args.minutes
    memory = _trend([(minute, mb) for minute, mb in _memory_by_minute(samples) if minute >= settled_min])
    latency = {
        name: _trend([(m, s) for m, s in per_minute(answered, QUANTILES[name]) if m >= settled_min])
        for name in ("p50", "p95")
    }
    report.details = {
        "minutes": args.minutes,
        "requests_per_s": per_second,
        **answered.told(),
        "failures": run.failures,
        "memory_mb": asdict(memory),
        "latency_s": {name: asdict(trend) for name, trend in latency.items()},
        "memory_by_minute_mb": _memory_by_minute(samples),
        "latency_by_minute_s": {
            name: per_minute(answered, QUANTILES[name]) for name in ("p50", "p95", "p99")
        },
        "processes": max(sample.processes for sample in samples),
        "threads": max(sample.threads for sample in samples),
    }
    p50, p95, p99 = (answered.latency_s(QUANTILES[name]) or 0.0 for name in ("p50", "p95", "p99"))
    report.rows = [
        Row(
            f"{args.minutes:g} min at {significant(per_second)} requests a second: latency p50 / p95 / p99",
            "–",
            f"{significant(p50)} / {significant(p95)} / {significant(p99)} s",
        ),
        row("… audio seconds per second", answered.audio_s_per_s),
        _row("… memory of all processes", memory, "MB", _MEMORY_MAY_GROW),
        _row("… median latency", latency["p50"], "s", _LATENCY_MAY_GROW),
        row("… requests that failed", sum(run.failures.values())),
    ]


def _row(figure: str, trend: Trend, unit: str, may_grow: float) -> Row:
    flat = trend.change <= may_grow
    shown = f"{significant(trend.median)} {unit}, {trend.slope_per_hour:+.3g} {unit} an hour"
    return Row(figure, "–", f"{shown}: {'flat' if flat else 'not flat'}", f"grows ≤ {may_grow:.0%}", flat)


def _memory_by_minute(samples: Sequence[TreeSample]) -> list[tuple[float, float]]:
    minutes = {int(sample.at_s // 60): None for sample in samples}
    return [
        (minute + 0.5, median([s.pss_mb for s in samples if int(s.at_s // 60) == minute]))
        for minute in minutes
    ]


def _trend(points: Sequence[tuple[float, float]]) -> Trend:
    """points: (minute, value)."""
    if len(points) < 2:
        raise SystemExit("too short: there must be two minutes after it has settled")
    slopes = [(b - a) / (y - x) for (x, a), (y, b) in itertools.combinations(points, 2)]
    middle = median([value for _, value in points])
    per_minute_ = median(slopes)
    span = points[-1][0] - points[0][0]
    return Trend(middle, 60 * per_minute_, per_minute_ * span / middle)


if __name__ == "__main__":
    main()
