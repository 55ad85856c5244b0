"""What it costs to listen to a recording, and to align its words, in a process of its own.

  thread      the same in this process, as the command line does it
  member      by a member of an audio host that did the same before
  newborn     by a member that was forked for it, as every recording would have one if none were used again

The recording is 10 s long. CPU time is of all processes together, host and members included. Waiting is
how late another thread of this process wakes up meanwhile, as the one would that answers HTTP.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
from figures import Report, Row, median, parser, row, significant
from watches import sample, tree_cpu_s

from voiceforge.infra.audiohost.pool import MemberPool
from voiceforge.infra.audiohost.remote_aligner import ALIGN, RemoteAligner
from voiceforge.infra.audiohost.remote_listener import LISTEN, RemoteListener
from voiceforge.main.build import keep_audio_host
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.alignment.english_pocketsphinx import ALIGNED_LANGUAGES, PocketsphinxAligner
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.pipeline.listen import Listener, ListenOptions, LocalListener

_OPTIONS = ListenOptions(longest_window_s=30.0, best_window_s=12.0)
_SAID = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
_TICK_S = 0.001
_TIMES = 30


def main() -> None:
    args = parser(__doc__, rounds=5).parse_args()
    clip = sample_recordings()[0]
    keeper = keep_audio_host()
    places = {LISTEN: 2, ALIGN: 1}
    used = MemberPool(keeper.address, places, patience_s=30)
    newborn = MemberPool(keeper.address, places, patience_s=30, orders_per_member=1)
    with open_audio(clip) as stream:
        samples = np.concatenate([block[0] for block in stream.blocks()])
    here, there = PocketsphinxAligner(max_decoders=1), RemoteAligner(used, ALIGNED_LANGUAGES)
    work: dict[str, Callable[[], object]] = {
        "listen, thread": lambda: _hear(local, clip),
        "listen, member": lambda: _hear(remote, clip),
        "listen, newborn": lambda: _hear(remote_newborn, clip),
        "align, thread": lambda: here.align(samples, _SAID),
        "align, member": lambda: there.align(samples, _SAID),
    }
    local, remote, remote_newborn = LocalListener(), RemoteListener(used), RemoteListener(newborn)
    report = Report("listening")
    _hear(remote, clip)
    report.rows += _memory(keeper.pid, "of the host of those who listen", "of a member that has listened")
    for once in work.values():
        once()
    report.rows += _memory(keeper.pid, "of the host once words have been aligned", "of its members")
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(args.rounds):
        for name, once in work.items():
            print(f"round {number + 1}/{args.rounds}: {name}", file=sys.stderr)
            for figure, value in _measure(once, keeper.pid).items():
                found[name][figure].append(value)
    medians = {name: {figure: median(values) for figure, values in of.items()} for name, of in found.items()}
    report.details["medians"] = medians
    for name, of in medians.items():
        reference = medians[f"{name.split(',')[0]}, thread"]
        for figure, unit in (("cpu_ms", "ms"), ("waited_p99_ms", "ms")):
            label = "CPU time for 10 s of audio" if figure == "cpu_ms" else "… another thread waits, p99"
            shown = f"{significant(reference[figure])} {unit}" if not name.endswith("thread") else "–"
            report.rows.append(
                row(f"{name}: {label}" if figure == "cpu_ms" else label, of[figure], unit, reference=shown)
            )
    for pool in (used, newborn):
        pool.close()
    keeper.close()
    report.finish(args.json)


def _hear(listener: Listener, clip: Path) -> None:
    with closing(listener.open(clip, _OPTIONS)) as recording:
        for _ in recording.events():
            pass


def _measure(once: Callable[[], object], host: int) -> dict[str, float]:
    own, theirs = time.process_time(), tree_cpu_s(host)
    with _ticking() as late_s:
        for _ in range(_TIMES):
            once()
    cpu_s = time.process_time() - own + tree_cpu_s(host) - theirs
    return {
        "cpu_ms": 1000 * cpu_s / _TIMES,
        "waited_p99_ms": 1000 * statistics.quantiles(late_s, n=100)[98],
    }


@contextlib.contextmanager
def _ticking() -> Iterator[list[float]]:
    late_s: list[float] = []
    over = threading.Event()

    def tick() -> None:
        while not over.is_set():
            began = time.perf_counter()
            time.sleep(_TICK_S)
            late_s.append(time.perf_counter() - began - _TICK_S)

    thread = threading.Thread(target=tick)
    thread.start()
    yield late_s
    over.set()
    thread.join()


def _memory(host: int, of_host: str, of_members: str) -> list[Row]:
    members = psutil.Process(host).children()
    private = [_private_mb(member.pid) for member in members]
    whole = sample(host)
    return [
        row(f"memory {of_host}", psutil.Process(host).memory_info().rss / 1e6, "MB"),
        Row(f"… {of_members} alone", "–", ", ".join(f"{significant(mb)} MB" for mb in private)),
        row("… all of them, what they share counted once", whole.pss_mb, "MB"),
    ]


def _private_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


if __name__ == "__main__":
    main()
