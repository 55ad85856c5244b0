"""Decoding to 16 kHz mono: ours beside bare soundfile + soxr and bare PyAV + soxr, format by format.

    python benchmarks/decode.py [--json OUT] [--rounds N] [--kinds wav-s16,mp3,…]

The recording is the wheel's own (44 s of speech), encoded here. Every contestant reads the same file from
disk, in turns, and gives what a recogniser would get. "best" is the fastest of the bare ones; the figure to
reach is within 10 % of it. A table goes to stdout, or the figures as JSON with `--json -`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.audio.decode import open_audio
from voiceforge.testing.recordings import Kind, encode

RATE = 16_000
CASES: list[tuple[Kind, int, int]] = [
    ("wav-s16", 16_000, 1),
    ("wav-s16", 44_100, 2),
    ("wav-s16", 48_000, 1),
    ("wav-f32", 48_000, 2),
    ("wav-mulaw", 8_000, 1),
    ("aiff", 44_100, 1),
    ("flac", 16_000, 1),
    ("flac", 44_100, 2),
    ("mp3", 16_000, 1),
    ("mp3", 44_100, 2),
    ("ogg-vorbis", 44_100, 1),
    ("ogg-opus", 48_000, 1),
    ("webm", 48_000, 1),
    ("m4a", 44_100, 1),
    ("aac", 44_100, 2),
    ("mp4-video", 44_100, 2),
    ("amr", 8_000, 1),
]


def ours(path: Path) -> int:
    with open_audio(path) as stream:
        return sum(block.shape[1] for block in stream.blocks())


def bare_soundfile(path: Path) -> int:
    """The whole file in one read, as a script would."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    return len(mono if rate == RATE else soxr.resample(mono, rate, RATE))


def bare_pyav(path: Path) -> int:
    """Frames gathered to a second before they are resampled."""
    import av
    import soxr

    count = 0
    resampler: Any = None
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        waiting = av.AudioFifo()

        def take(frame: Any, last: bool = False) -> None:
            nonlocal count, resampler
            mono = _mono(frame)
            if frame.sample_rate != RATE:
                resampler = resampler or soxr.ResampleStream(frame.sample_rate, RATE, 1)
                mono = resampler.resample_chunk(mono, last=last)
            count += len(mono)

        for frame in container.decode(stream):
            frame.pts = None
            waiting.write(frame)
            if waiting.samples >= frame.sample_rate:
                take(waiting.read(frame.sample_rate))
        rest = waiting.read(0, partial=True)
        if rest is not None:
            take(rest, last=True)
    return count


def _mono(frame: Any) -> NDArray[np.float32]:
    values = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    if values.dtype != np.float32:
        full_scale = 128 if values.dtype == np.uint8 else -float(np.iinfo(values.dtype).min)
        values = np.multiply(values, 1 / full_scale, dtype=np.float32)
    mixed: NDArray[np.float32] = values[0] if channels == 1 else values.mean(axis=0)
    return mixed


CONTESTANTS: dict[str, Callable[[Path], int]] = {
    "ours": ours,
    "soundfile": bare_soundfile,
    "pyav": bare_pyav,
}


def speech(rate_hz: int, channels: int) -> NDArray[np.float32]:
    """Shape (n_samples, channels)."""
    import soundfile
    import soxr

    wheel = find_spec("moonshine_voice")
    if wheel is None or not wheel.submodule_search_locations:
        sys.exit("the recording comes from the moonshine-voice package, which is not installed")
    path = Path(wheel.submodule_search_locations[0]) / "assets" / "two_cities.wav"
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(samples[:, 0], rate, rate_hz)
    return np.repeat(mono[:, np.newaxis], channels, axis=1)


def measure(path: Path, rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each contestant that reads the file; in turns, so that drift hits all."""
    times: dict[str, list[float]] = {}
    for name, decode in CONTESTANTS.items():
        try:
            decode(path)
        except Exception:  # a bare library that does not know the format is no contestant
            if name == "ours":
                raise
            continue
        times[name] = []
    names = list(times)
    for turn in range(rounds):
        for place in range(len(names)):  # nobody always runs in the cache another left warm
            name = names[(turn + place) % len(names)]
            started = time.process_time()
            CONTESTANTS[name](path)
            times[name].append((time.process_time() - started) * 1000)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="OUT", help="also write the figures as JSON; - for stdout")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kinds", help="only these, with commas between")
    arguments = parser.parse_args()
    wanted = set(arguments.kinds.split(",")) if arguments.kinds else None

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, rate, channels in CASES:
            if wanted and kind not in wanted:
                continue
            samples = speech(rate, channels)
            try:
                data = encode(samples, rate, kind)
            except LookupError as missing:
                print(missing, file=sys.stderr)
                continue
            path = Path(folder) / "recording"
            path.write_bytes(data)
            taken = measure(path, arguments.rounds)
            best = min(value for name, value in taken.items() if name != "ours")
            rows.append(
                {
                    "format": kind,
                    "sample_rate_hz": rate,
                    "channels": channels,
                    "audio_s": round(len(samples) / rate, 3),
                    "cpu_ms": {name: round(value, 3) for name, value in taken.items()},
                    "of_best": round(taken["ours"] / best, 3),
                }
            )
    if arguments.json == "-":
        json.dump(rows, sys.stdout, indent=2)
        return
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n")
    audio_s = rows[0]["audio_s"] if rows else 0
    print(f"CPU ms for {audio_s:.1f} s of speech, median of {arguments.rounds}")
    print(f"{'format':<12}{'Hz':>7}{'ch':>4}{'ours':>9}{'soundfile':>11}{'pyav':>9}{'of best':>9}")
    for row in rows:
        cells = [f"{row['cpu_ms'][name]:.2f}" if name in row["cpu_ms"] else "–" for name in CONTESTANTS]
        print(
            f"{row['format']:<12}{row['sample_rate_hz']:>7}{row['channels']:>4}"
            f"{cells[0]:>9}{cells[1]:>11}{cells[2]:>9}{row['of_best']:>9.2f}"
        )


if __name__ == "__main__":
    main()
