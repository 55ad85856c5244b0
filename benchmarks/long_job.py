"""A job of three hours: how much memory it takes, and whether what it says of its progress comes true.

The recording is real speech with pauses, in passages of one to eight minutes in which much, little or hardly
anything is said, so that half of the audio is not half of the work. It is uploaded as a form, and watched
once a second until it is completed:

    memory      of the API and the workers: every process of `voiceforge serve` (and of `voiceforge worker`),
                the engine host and the audio hosts included; pages that several share counted once (PSS).
                Idle: after the start, before the first request
    percent     beside the share of the time that had passed, which is known only afterwards
    time left   `seconds_left` beside the time it took from there on, from a tenth of the time on; what is
                left at the very end, less than 2 s, is not judged

`--shape thinning` and `thickening` sort the passages, so that the work per minute of audio changes all the
way: nothing that looks back can foretell that. With `--distributed` a separate worker does the work, told
through Redis, with PostgreSQL.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from figures import Bound, Report, median, parser, row
from processes import environment, serving, voiceforge
from recordings import SHAPES, write_uneven_recording
from watches import sample

from voiceforge.testing.postgres_server import postgres_server
from voiceforge.testing.redis_server import redis_server

_LOOK_S = 1.0
_SETTLE_S = 5.0
_JUDGED_LEFT_S = 2.0
_PROMISE_AFTER = 0.1


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment. at: Unix seconds. pss_mb, rss_mb: of all processes."""

    at: float
    percent: float
    seconds_left: float | None
    pss_mb: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Watched:
    """A job from its submission to its end; began, ended: Unix seconds, of its own account."""

    idle_mb: float
    looks: Sequence[Look]
    began: float
    ended: float
    characters: int

    @property
    def took_s(self) -> float:
        return self.ended - self.began

    @property
    def percent_errors(self) -> list[float]:
        """In points, of each look."""
        return [look.percent - 100 * (look.at - self.began) / self.took_s for look in self._running]

    @property
    def left_errors(self) -> list[float]:
        """As shares of what was left in truth."""
        return [
            (look.seconds_left - (self.ended - look.at)) / (self.ended - look.at)
            for look in self._running
            if look.seconds_left is not None
            and look.at >= self.began + _PROMISE_AFTER * self.took_s
            and self.ended - look.at >= _JUDGED_LEFT_S
        ]

    @property
    def _running(self) -> list[Look]:
        return [look for look in self.looks if self.began <= look.at <= self.ended]


def main() -> None:
    made = parser(__doc__, rounds=1)
    made.add_argument("--seconds", type=float, default=3 * 3600.0, help="of audio (default 10800)")
    made.add_argument("--shape", choices=SHAPES, action="append", help="again for more (default mixed)")
    made.add_argument("--distributed", action="store_true", help="PostgreSQL, Redis and a separate worker")
    args = made.parse_args()
    report = Report("long_job")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shape in args.shape or ["mixed"]:
            path = folder / f"{shape}.flac"
            print(f"making a {shape} recording", file=sys.stderr)
            seconds = write_uneven_recording(path, args.speech, args.seconds, shape)
            for number in range(args.rounds):
                print(f"{shape}, round {number + 1}/{args.rounds}", file=sys.stderr)
                with _started(args, folder / f"{shape}-{number}") as (url, roots):
                    watched = _watch(path, url, roots)
                _tell(report, args, shape, seconds, watched)
            path.unlink()
    report.finish(args.json)


@contextlib.contextmanager
def _started(args: Namespace, folder: Path) -> Iterator[tuple[str, list[int]]]:
    """The server's address, and the processes whose families are measured."""
    with contextlib.ExitStack() as stack:
        more: dict[str, str] = {}
        if args.distributed:
            (folder / "redis").mkdir(parents=True)
            redis = stack.enter_context(redis_server(folder / "redis"))
            postgres = stack.enter_context(postgres_server())
            more = {
                "VOICEFORGE_DATABASE__URL": postgres.new_database(),
                "VOICEFORGE_JOBS__BROKER_URL": redis.url,
            }
        env = environment(folder / "data", **more)
        if args.distributed:
            subprocess.run([*voiceforge(), "db", "upgrade"], env=env, check=True, stdout=subprocess.DEVNULL)
        roots = []
        if args.distributed:
            worker = subprocess.Popen(
                [*voiceforge(), "worker"],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(worker.wait)
            stack.callback(worker.terminate)
            roots.append(worker.pid)
        server = stack.enter_context(serving(env))
        time.sleep(_SETTLE_S)
        yield server.url, [server.pid, *roots]


def _watch(path: Path, url: str, roots: Sequence[int]) -> Watched:
    idle_mb = sum(sample(pid).pss_mb for pid in roots)
    looks: list[Look] = []
    with httpx.Client(base_url=url, timeout=300) as client:
        with path.open("rb") as file:
            reply = client.post("/v1/transcriptions", data={"mode": "async"}, files={"file": file})
        reply.raise_for_status()
        address = reply.headers["location"]
        while True:
            job = client.get(address).raise_for_status().json()
            at = time.time()
            if job["status"] == "completed":
                break
            if job["status"] not in ("queued", "running"):
                raise SystemExit(f"the job is {job['status']}: {job['error']}")
            samples = [sample(pid) for pid in roots]
            looks.append(
                Look(
                    at,
                    job["percent"],
                    job["seconds_left"],
                    sum(one.pss_mb for one in samples),
                    sum(one.rss_mb for one in samples),
                )
            )
            if sys.stderr.isatty():
                print(f"\r{job['percent']:.1f} %, {job['seconds_left']} s left ", end="", file=sys.stderr)
            time.sleep(_LOOK_S)
    return Watched(idle_mb, looks, _unix(job["started_at"]), _unix(job["finished_at"]), len(job["text"]))


def _unix(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def _tell(report: Report, args: Namespace, shape: str, seconds: float, watched: Watched) -> None:
    peak_mb = max(look.pss_mb for look in watched.looks)
    points = [abs(error) for error in watched.percent_errors]
    shares = [abs(error) for error in watched.left_errors]
    where = "a separate worker, PostgreSQL, Redis" if args.distributed else "the server alone"
    report.details[f"{where}, {shape}"] = _details(seconds, watched)
    report.rows += [
        row(
            f"{seconds / 3600:.3g} h, {shape}, {where}: memory above idle, at most",
            peak_mb - watched.idle_mb,
            "MB",
            reference=f"{watched.idle_mb:.0f} MB idle",
            bound=Bound(300, "at most"),
        ),
        row(
            "… percent off the share of the time, at most", max(points), "points", bound=Bound(10, "at most")
        ),
        row("… in the middle of all looks", median(points), "points"),
        row(
            "… time left off, after the first tenth, at most",
            100 * max(shares, default=0.0),
            "%",
            bound=Bound(25, "at most"),
        ),
        row("… in the middle of all looks", 100 * median(shares) if shares else None, "%"),
        row("… audio seconds per second", seconds / watched.took_s),
    ]


def _details(seconds: float, watched: Watched) -> dict[str, Any]:
    return {
        "audio_s": seconds,
        "took_s": watched.took_s,
        "idle_mb": watched.idle_mb,
        "peak_rss_mb": max(look.rss_mb for look in watched.looks),
        "characters": watched.characters,
        "looks": [
            asdict(look) | {"at": look.at - watched.began, "left_in_truth_s": watched.ended - look.at}
            for look in watched.looks
        ],
    }


if __name__ == "__main__":
    main()
