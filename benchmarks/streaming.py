"""Live streams: how soon text comes, and how many streams one machine bears.

Every stream sends real recordings in real time from another process. Latencies are counted from where the
words end in the reference alignment; the endpoint's own silence is told apart. The number of streams grows
step by step; the first step is one stream.

    python benchmarks/streaming.py --streams 1 8 16 24 32 --json build/bench/streaming.json
    python benchmarks/streaming.py --streams 1 --endpointing-ms 100
    python benchmarks/streaming.py --silent 150 300
    python benchmarks/streaming.py --streams 1 --seconds 3600
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from argparse import Namespace
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from figures import Bound, Report, parser, row
from processes import Failed, environment, serving
from stream_clients import DOORS, Heard, Notes, Order
from stream_picture import draw_steps
from stream_scripts import Script, scripts, silent_script
from traffic import quantile
from watches import TreeSample, sample, tree_cpu_s, watched

from voiceforge.speech.training.evaluation import ErrorCounts, Scorer

_MEMORY_EVERY_S = 1.0
_MANY_FINALS = 80
"""From here on it can be told whether a stream grows slower."""
_LATE_S = 0.25
"""A client whose frames go out later than this cannot say what the server did."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one step. Latencies in seconds.

    first_interim: from where the first word of an utterance begins. final: from where the last word of an
    utterance ended to its final. after_endpoint: without the endpoint's silence. stable: from the end of a
    word to the moment when it was told as stable. after_close: from the last frame to the end. pss_mb: of the
    server and all it started, when the streams were closed.
    """

    streams: int
    first_interim: list[float]
    final: list[float]
    after_endpoint: list[float]
    stable: list[float]
    after_close: list[float]
    interims: int
    errors: list[str]
    counts: ErrorCounts
    late_s: float
    cpu_s: float
    audio_s: float
    pss_mb: float
    silent: bool = False

    @property
    def cores(self) -> float:
        """The server's, while the streams spoke."""
        return self.cpu_s / (self.audio_s / self.streams)

    def told(self) -> dict[str, Any]:
        shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
        latencies = ("first_interim", "final", "after_endpoint", "stable", "after_close")
        return {
            "streams": self.streams,
            "silent": self.silent,
            "latencies_s": {
                name: {share: quantile(getattr(self, name), value) for share, value in shares.items()}
                for name in latencies
            },
            "finals": len(self.final),
            "interims": self.interims,
            "interims_per_audio_s": self.interims / self.audio_s,
            "errors": self.errors,
            "word_errors": asdict(self.counts),
            "wer": self.counts.rate,
            "client_late_s": self.late_s,
            "cores": self.cores,
            "pss_mb_afterwards": self.pss_mb,
        }


def main() -> None:
    args = _arguments()
    most = max(args.streams, default=0)
    said = scripts(args.speech, min(most, args.scripts), args.seconds) if most else []
    steps: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        env = environment(
            Path(folder),
            VOICEFORGE_STREAMS__MAX_SESSIONS="2000",
            VOICEFORGE_STREAMS__MAX_SESSIONS_PER_KEY="2000",
        )
        with serving(env) as server, watched(server.pid, _MEMORY_EVERY_S) as memory:
            for count in args.streams:
                steps.append(_step(args, server.url, server.pid, said, count))
            for count in args.silent:
                quiet = [silent_script(args.silent_seconds)]
                steps.append(_step(args, server.url, server.pid, quiet, count, silent=True))
    report = Report("streaming")
    report.details = {
        "door": args.door,
        "frame_ms": args.frame_ms,
        "endpointing_ms": args.endpointing_ms,
        "interim_every_ms": args.interim_every_ms,
        "seconds": args.seconds,
        "steps": [step.told() for step in steps],
        "memory": [[round(s.at_s, 1), round(s.rss_mb, 1), round(s.pss_mb, 1)] for s in memory.samples],
    }
    for step in steps:
        report.rows += _rows(args, step)
    if len(memory.samples) > 60:
        report.rows.append(_growth(memory.samples))
    report.finish(args.json)
    picture = args.picture or (args.json and args.json.with_suffix(".png"))
    speaking = [step for step in steps if not step.silent]
    if picture and len(speaking) > 1:
        draw_steps(speaking, picture)
        print(f"picture: {picture}", file=sys.stderr)


def _arguments() -> Namespace:
    made = parser(__doc__, rounds=1)
    made.add_argument("--streams", type=int, nargs="*", default=[1, 8, 16, 24, 32], help="at once, by step")
    made.add_argument("--silent", type=int, nargs="*", default=[], help="streams that only listen, by step")
    made.add_argument(
        "--seconds", type=float, default=60.0, help="how long each speaks (default %(default)s)"
    )
    made.add_argument("--silent-seconds", type=float, default=30.0, help="how long each of those listens")
    made.add_argument("--scripts", type=int, default=16, help="different ones, at most (default %(default)s)")
    made.add_argument("--door", choices=sorted(DOORS), default="native")
    made.add_argument("--frame-ms", type=int, default=50, help="of audio in a message (default %(default)s)")
    made.add_argument("--endpointing-ms", type=int, default=300)
    made.add_argument("--interim-every-ms", type=int, default=500)
    made.add_argument("--picture", type=Path, metavar="FILE", help="default: beside --json")
    return made.parse_args()


def _step(
    args: Namespace, url: str, pid: int, said: Sequence[Script], count: int, *, silent: bool = False
) -> Figures:
    print(f"{count} {'silent ' if silent else ''}streams …", file=sys.stderr)
    order = Order(
        server=url.replace("http", "ws", 1),
        door=args.door,
        options={"endpointing_ms": args.endpointing_ms, "interim_every_ms": args.interim_every_ms},
        frame_ms=args.frame_ms,
        scripts=said,
        assigned=[number % len(said) for number in range(count)],
        stagger_s=min(10.0, 0.25 * count),
    )
    before = tree_cpu_s(pid)
    notes = _clients(order)
    after = sample(pid)
    return _figures(args, said, notes, after.cpu_s - before, after.pss_mb, silent=silent)


def _clients(order: Order) -> list[Notes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "order"
        path.write_bytes(pickle.dumps(order))
        program = Path(__file__).with_name("stream_clients.py")
        done = subprocess.run([sys.executable, str(program), str(path)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"the clients ended with {done.returncode}: {done.stderr[-500:]}")
    told = json.loads(done.stdout)
    return [Notes(**{**note, "heard": [Heard(**heard) for heard in note["heard"]]}) for note in told]


def _figures(
    args: Namespace,
    said: Sequence[Script],
    notes: Sequence[Notes],
    cpu_s: float,
    pss_mb: float,
    *,
    silent: bool,
) -> Figures:
    scorer = Scorer()
    found = Figures(
        streams=len(notes),
        first_interim=[],
        final=[],
        after_endpoint=[],
        stable=[],
        after_close=[],
        interims=sum(heard.kind == "interim" for note in notes for heard in note.heard),
        errors=[note.error for note in notes if note.error is not None],
        counts=sum(
            (
                scorer.score(said[note.script].text, _text(note), "en").words
                for note in notes
                if said[note.script].text
            ),
            start=ErrorCounts(),
        ),
        late_s=max((note.late_s for note in notes), default=0.0),
        cpu_s=cpu_s,
        audio_s=sum(note.seconds for note in notes),
        pss_mb=pss_mb,
        silent=silent,
    )
    for note in notes:
        _latencies(note, said[note.script], args.endpointing_ms / 1000, found)
    return found


def _text(note: Notes) -> str:
    return " ".join(heard.text for heard in note.heard if heard.kind == "final")


def _latencies(note: Notes, script: Script, endpoint_s: float, found: Figures) -> None:
    """Add those of one stream. An utterance is all that was told of one stretch up to its final."""
    starts = [word.start for word in script.words]
    waits_for_interim = True
    begun_words = stable = 0
    for heard in note.heard:
        if heard.kind == "done":
            found.after_close.append(heard.at_s - note.seconds)
            continue
        # The reference's words up to the end of this stretch; a word belongs where its start is.
        upto = bisect_right(starts, heard.end)
        if upto <= begun_words:
            continue
        if heard.kind == "interim":
            if waits_for_interim and heard.text:
                found.first_interim.append(heard.at_s - script.words[begun_words].start)
                waits_for_interim = False
            for place in range(begun_words + stable, min(begun_words + heard.stable, upto)):
                found.stable.append(heard.at_s - script.words[place].end)
            stable = max(stable, heard.stable)
            continue
        if heard.endpoint:
            final_s = heard.at_s - script.words[upto - 1].end
            found.final.append(final_s)
            found.after_endpoint.append(final_s - endpoint_s)
        begun_words, stable, waits_for_interim = upto, 0, True


def _rows(args: Namespace, step: Figures) -> list[Any]:
    if step.silent:
        name = f"{step.streams} streams that only listen"
        return [
            row(
                f"{name}: streams per core of the server",
                step.streams / step.cores,
                bound=Bound(150, "at least"),
            ),
            row(f"{name}: errors", len(step.errors), bound=Bound(0, "at most")),
            row(f"{name}: latest frame of the clients", 1000 * step.late_s, "ms"),
        ]
    name = "1 stream" if step.streams == 1 else f"{step.streams} streams"

    def ms(values: Sequence[float], share: float) -> float | None:
        value = quantile(values, share)
        return None if value is None else 1000 * value

    alone = step.streams == 1
    whole = {300: 450.0, 100: 250.0}.get(args.endpointing_ms)
    rows = [
        row(
            f"{name}: final after the endpoint, p50",
            ms(step.after_endpoint, 0.5),
            "ms",
            bound=Bound(100, "at most") if alone else None,
        ),
        row(
            f"{name}: final after the endpoint, p95",
            ms(step.after_endpoint, 0.95),
            "ms",
            bound=Bound(200 if alone else 600, "at most"),
        ),
        row(
            f"{name}: final after the last word, endpoint of {args.endpointing_ms} ms, p50",
            ms(step.final, 0.5),
            "ms",
            bound=Bound(whole, "at most") if alone and whole is not None else None,
        ),
        row(
            f"{name}: first interim after the first word begins, p50",
            ms(step.first_interim, 0.5),
            "ms",
            bound=Bound(600, "at most") if alone else None,
        ),
        row(f"{name}: a word told as stable after it ended, p50", ms(step.stable, 0.5), "ms"),
        row(f"{name}: all told after the last frame, p95", ms(step.after_close, 0.95), "ms"),
        row(f"{name}: interims per second of audio", step.interims / step.audio_s),
        row(
            f"{name}: word errors of the finals",
            None if step.counts.rate is None else 100 * step.counts.rate,
            "%",
        ),
        row(f"{name}: cores of the server", step.cores),
        row(f"{name}: memory of the server afterwards", step.pss_mb, "MB"),
        row(f"{name}: errors", len(step.errors), bound=Bound(0, "at most")),
    ]
    if alone and len(step.after_endpoint) >= _MANY_FINALS:
        quarter = len(step.after_endpoint) // 4
        for when, part in (
            ("first", step.after_endpoint[:quarter]),
            ("last", step.after_endpoint[-quarter:]),
        ):
            rows.append(row(f"{name}: … after the endpoint, p50 of the {when} quarter", ms(part, 0.5), "ms"))
    if step.late_s > _LATE_S:
        rows.append(row(f"{name}: the clients were late themselves, by up to", 1000 * step.late_s, "ms"))
    return rows


def _growth(samples: Sequence[TreeSample]) -> Any:
    """From the mean of the second tenth to that of the last: the first holds what is loaded late."""
    tenth = max(1, len(samples) // 10)
    early = [sample.pss_mb for sample in samples[tenth : 2 * tenth]]
    late = [sample.pss_mb for sample in samples[-tenth:]]
    return row("memory that the server grew by", sum(late) / len(late) - sum(early) / len(early), "MB")


if __name__ == "__main__":
    main()
