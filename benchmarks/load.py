"""A transcription server under load: more and more clients, then arrivals at given rates.

Recordings of mixed lengths and formats come by several doors. The server is started here, with its defaults,
unless --url names one that runs (then its memory is not known without --pid). Clients are a process of their
own; arrivals at a rate do not wait for answers, and their latency counts from when they were due. Nothing is
answered from the cache unless --cached asks for that.

    python benchmarks/load.py --clients 1 16 64 --rates 50% 80% 110% --json build/bench/load.json
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any

from figures import Report, Row, parser, row, significant
from health_probe import health_watched
from load_picture import Step, draw_steps
from processes import environment, serving
from traffic import (
    DOORS,
    QUANTILES,
    Prepared,
    Run,
    client,
    closed_loop,
    mixed_clips,
    open_loop,
    prepare,
    quantile,
    sender,
)
from watches import TreeSample, watched

_MEMORY_EVERY_S = 0.5


def main() -> None:
    args = _arguments()
    if args.rates and any(rate.endswith("%") for rate in args.rates) and not args.clients:
        raise SystemExit("a rate in % is one of the throughput of --clients: name some")
    clips = mixed_clips(args.speech, args.clips, longest_s=args.longest)
    requests = prepare(clips, args.doors, model=args.model, cached=args.cached)
    lengths = sorted(clip.seconds for clip in clips)
    with _target(args) as (url, pid):
        steps, memory = asyncio.run(_load(args, url, pid, requests))
    report = Report("load")
    report.details = {
        "recordings": len(clips),
        "audio_s": {"shortest": lengths[0], "mean": sum(lengths) / len(lengths), "longest": lengths[-1]},
        "doors": args.doors,
        "cached": args.cached,
        "steps": [_told(step) for step in steps],
        "memory": [[round(s.at_s, 1), round(s.rss_mb, 1), round(s.pss_mb, 1), s.processes] for s in memory],
    }
    for step in steps:
        report.rows += _rows(step)
    if memory:
        report.rows.append(
            row("memory of all processes of the server, at most", max(s.rss_mb for s in memory), "MB")
        )
    report.finish(args.json)
    picture = args.picture or (args.json and args.json.with_suffix(".png"))
    if picture:
        draw_steps(f"{len(clips)} recordings, by {', '.join(args.doors)}", steps, memory, picture)
        print(f"picture: {picture}", file=sys.stderr)


def _arguments() -> Namespace:
    made = parser(__doc__, rounds=1)
    made.add_argument("--url", help="a server that runs; else one is started here")
    made.add_argument("--pid", type=int, help="of that server, to watch its memory")
    made.add_argument("--key", help="API key of that server")
    made.add_argument(
        "--setting", action="append", default=[], metavar="NAME=VALUE", help="of our own server"
    )
    made.add_argument(
        "--serve", action="append", default=[], metavar="ARGUMENT", help="of `voiceforge serve`"
    )
    made.add_argument("--clients", type=int, nargs="*", default=[1, 4, 16, 64], help="(default 1 4 16 64)")
    made.add_argument(
        "--per-client",
        type=int,
        default=2,
        help="requests of each client, and every recording once, at least (default 2)",
    )
    made.add_argument(
        "--rates",
        nargs="*",
        default=["50%", "80%", "110%"],
        help="requests per second, or in %% of the most that --clients got (default 50%% 80%% 110%%)",
    )
    made.add_argument("--seconds", type=float, default=30.0, help="of arrivals at each rate (default 30)")
    made.add_argument("--doors", nargs="+", choices=sorted(DOORS), default=list(DOORS))
    made.add_argument("--model", help="which to ask for; unset: the server's default")
    made.add_argument("--clips", type=int, default=48, help="different recordings (default 48)")
    made.add_argument(
        "--longest", type=float, default=120.0, help="… of at most so many seconds (default 120)"
    )
    made.add_argument("--cached", action="store_true", help="let the server answer from its cache")
    made.add_argument("--picture", type=Path, metavar="FILE", help="(default: beside --json)")
    return made.parse_args()


@contextlib.contextmanager
def _target(args: Namespace) -> Iterator[tuple[str, int | None]]:
    if args.url:
        yield args.url.rstrip("/"), args.pid
        return
    chosen = dict(setting.split("=", 1) for setting in args.setting)
    if args.cached:
        chosen = {"VOICEFORGE_CACHE__ENABLED": "true", **chosen}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(environment(Path(folder) / "data", **chosen), *args.serve))
        yield server.url, server.pid


async def _load(
    args: Namespace, url: str, pid: int | None, requests: Sequence[Prepared]
) -> tuple[list[Step], list[TreeSample]]:
    steps: list[Step] = []
    began = time.perf_counter()
    with watched(pid, _MEMORY_EVERY_S) if pid else contextlib.nullcontext() as memory:
        async with client(url, key=args.key) as http:
            send = sender(http)
            await closed_loop(send, requests, clients=2, count=4)  # nobody's first request counts
            for clients in args.clients:
                count = max(len(requests), clients * args.per_client)
                work = closed_loop(send, requests, clients=clients, count=count)
                name = f"{clients} client{'s' if clients > 1 else ''}"
                steps.append(await _step(name, began, url, work))
            best = max((len(step.run.answered) / step.run.wall_s for step in steps), default=0.0)
            for rate in args.rates:
                share = float(rate[:-1]) / 100 if rate.endswith("%") else None
                per_second = best * share if share else float(rate)
                name = f"{significant(per_second)} a second" + (f" ({rate})" if share else "")
                work = open_loop(send, requests, per_second=per_second, seconds=args.seconds)
                steps.append(await _step(name, began, url, work))
    return steps, list(memory.samples) if memory else []


async def _step(name: str, began: float, url: str, work: Awaitable[Run]) -> Step:
    began_s = time.perf_counter() - began
    with health_watched(url) as health:
        run = await work
    print(
        f"{name}: {significant(run.audio_s_per_s)} audio s/s, {run.failures or 'no failures'}",
        file=sys.stderr,
    )
    return Step(name, began_s, run, health.found)


def _told(step: Step) -> dict[str, Any]:
    seconds = [probe.seconds for probe in step.probes]
    failed = Counter(probe.status for probe in step.probes if probe.status != 200)
    return {
        "load": step.name,
        "began_s": round(step.began_s, 2),
        **step.run.told(),
        "health": {
            "probes": len(seconds),
            "not_200": {str(status): count for status, count in failed.items()},
            "latency_s": {name: quantile(seconds, share) for name, share in QUANTILES.items()},
        },
    }


def _rows(step: Step) -> list[Row]:
    times = [step.run.latency_s(QUANTILES[name]) for name in ("p50", "p95", "p99")]
    shown = " / ".join(significant(value) if value is not None else "–" for value in times)
    failures = ", ".join(f"{count} × {kind}" for kind, count in step.run.failures.items())
    health_s = quantile([probe.seconds for probe in step.probes], 0.99)
    return [
        row(f"{step.name}: audio seconds per second", step.run.audio_s_per_s),
        Row("… latency p50 / p95 / p99, s", "–", shown),
        row("… /health meanwhile, p99", None if health_s is None else 1000 * health_s, "ms"),
        *([Row("… failures", "–", failures)] if failures else []),
    ]


if __name__ == "__main__":
    main()
