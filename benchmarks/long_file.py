"""Memory must not grow with the recording: `voiceforge transcribe` of five minutes against three hours.

Both files are FLAC, made of the same clips with pauses, written piece by piece. The document grows with
the text, as it must: three hours are some 150 kB of text, ten times that as JSON with word times.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from figures import Bound, Report, median, parser, row, significant
from processes import environment, run, voiceforge
from recordings import write_long_recording


def main() -> None:
    made = parser(__doc__, rounds=1)
    made.add_argument("--short", type=float, default=300.0, metavar="SECONDS", help="(default 300)")
    made.add_argument("--long", type=float, default=3 * 3600.0, metavar="SECONDS", help="(default 10800)")
    made.add_argument("--format", default="json", help="of the output (default %(default)s)")
    made.add_argument("--words", action="store_true", help="with word times")
    args = made.parse_args()
    more = ["--words"] if args.words else []
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        env = environment(Path(folder) / "data")
        for name, wanted_s in (("short", args.short), ("long", args.long)):
            path = Path(folder) / f"{name}.flac"
            seconds = write_long_recording(path, args.speech, wanted_s)
            costs = []
            for number in range(args.rounds):
                print(f"{name} ({seconds:.0f} s), round {number + 1}/{args.rounds}", file=sys.stderr)
                costs.append(
                    run([*voiceforge(), "transcribe", str(path), "--format", args.format, *more], env)
                )
            path.unlink()
            numbers = {
                key: median([asdict(cost)[key] for cost in costs])
                for key in ("wall_s", "cpu_s", "peak_rss_mb")
            }
            found[name] = numbers | {"audio_s": seconds, "output_bytes": len(costs[0].output.encode())}
    short, long = found["short"], found["long"]
    report = Report("long_file", details=found)
    report.rows = [
        row(
            f"peak memory, {long['audio_s'] / 3600:.1f} h against {short['audio_s'] / 60:.0f} min",
            long["peak_rss_mb"] - short["peak_rss_mb"],
            "MB more",
            reference=f"{significant(short['peak_rss_mb'])} MB",
            bound=Bound(150, "at most"),
        ),
        row("… peak memory of the short one", short["peak_rss_mb"], "MB", bound=Bound(450, "at most")),
        row("… audio seconds per CPU-second, the long one", long["audio_s"] / long["cpu_s"]),
        row("… audio seconds per second, the long one", long["audio_s"] / long["wall_s"]),
    ]
    report.finish(args.json)


if __name__ == "__main__":
    main()
