"""Jobs while everything they need is killed: none lost, none finished twice, none with another text, and
every webhook with one id.

Short recordings go to a server over HTTP, one after the other, while a script kills -9 one thing after the
other, which comes back at once: with `--workers`, a random worker, Redis (which forgets everything) and
PostgreSQL in turn; with `--embedded`, the server that does it all. The texts are compared with those of a run
that nobody disturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

from voiceforge.services.samples import sample_recordings
from voiceforge.testing.job_cluster import JobCluster, Outcome, job_cluster

_OVER_S = 3600.0
_PIECE_S = 5.0


async def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clips = _cut(folder / "clips", arguments.clips)
    workers = 0 if arguments.embedded else arguments.workers
    (folder / "cluster").mkdir()
    async with job_cluster(folder / "cluster", workers=workers) as cluster:
        calm = [await cluster.submit(-number, clip) for number, clip in enumerate(clips, 1)]
        await cluster.all_over(len(clips), _OVER_S)
        expected = (await cluster.outcome(calm)).texts
        began = time.monotonic()
        submitting = asyncio.create_task(_submit(cluster, clips, arguments))
        watching = asyncio.create_task(_over(cluster, submitting, len(clips) + arguments.jobs))
        kills = (
            [cluster.kill_server]
            if arguments.embedded
            else [cluster.kill_worker, cluster.kill_redis, cluster.kill_postgres]
        )
        await cluster.disturb(kills, every_s=arguments.every_s, until=watching)
        took_s = time.monotonic() - began
        accepted = submitting.result()
        await cluster.ready()
        try:
            await cluster.webhooks_arrived(accepted, 120)
        except TimeoutError:
            print("webhooks are missing", file=sys.stderr)
        found = await cluster.outcome(accepted)
        await cluster.stop()
        if arguments.log is not None:
            arguments.log.write_text(cluster.logs())
        return _record(arguments, cluster, found, expected, took_s)


def _cut(folder: Path, count: int) -> list[Path]:
    """Pieces of real speech, each another."""
    folder.mkdir()
    samples, rate_hz = soundfile.read(sample_recordings()[1])
    made = []
    for number in range(count):
        start = int(number * _PIECE_S * rate_hz)
        made.append(folder / f"piece-{number}.wav")
        soundfile.write(made[-1], samples[start : start + int(_PIECE_S * rate_hz)], rate_hz)
    return made


async def _submit(cluster: JobCluster, clips: Sequence[Path], arguments: argparse.Namespace) -> list[str]:
    accepted = []
    for number in range(arguments.jobs):
        accepted.append(await cluster.submit(number, clips[number % len(clips)]))
        await asyncio.sleep(arguments.pause_s)
    return accepted


async def _over(cluster: JobCluster, submitting: asyncio.Task[list[str]], count: int) -> None:
    await submitting
    await cluster.all_over(count, _OVER_S)


def _record(
    arguments: argparse.Namespace,
    cluster: JobCluster,
    found: Outcome,
    expected: dict[str, set[str]],
    took_s: float,
) -> dict[str, Any]:
    record = {
        "mode": "embedded" if arguments.embedded else "postgresql + redis",
        "workers": 0 if arguments.embedded else arguments.workers,
        "jobs": arguments.jobs,
        "every_s": arguments.every_s,
        "took_s": round(took_s, 1),
        "kills": dict(cluster.kills),
        "submissions_tried_again": cluster.refusals,
        "statuses": dict(found.statuses),
        "errors": dict(found.errors),
        "lost": arguments.jobs - found.statuses["completed"],
        "finished_twice": sum(jobs for times, jobs in found.ends.items() if times > 1),
        "other_texts": sum(len(texts - expected[clip]) for clip, texts in found.texts.items()),
        "webhooks_missing": arguments.jobs - found.message_ids,
        "webhooks_repeated": found.messages - found.message_ids - len(expected),
        "most_webhook_ids_of_a_job": found.most_ids_of_a_job,
    }
    record["kept"] = (
        record["lost"] == record["finished_twice"] == record["other_texts"] == record["webhooks_missing"] == 0
        and record["most_webhook_ids_of_a_job"] == 1
    )
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--embedded", action="store_true", help="The server alone, as it comes.")
    parser.add_argument("--every-s", type=float, default=3.0, help="Between two kills.")
    parser.add_argument("--pause-s", type=float, default=0.05, help="Between two submissions.")
    parser.add_argument("--clips", type=int, default=8, help="Different recordings.")
    parser.add_argument("--log", type=Path, help="Where to leave the log of all processes.")
    parser.add_argument("--json", type=Path, help="Where to write the record.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = asyncio.run(measure(arguments, Path(folder)))
    print(json.dumps(record, indent=2))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record))
    sys.exit(0 if record["kept"] else 1)


if __name__ == "__main__":
    main()
