"""Going on after a crash: what it costs to hear again what was recognised already.

    listening   decoding and looking for speech, from the start to the end, in two formats
    whole       a transcription that nothing disturbs, with its chunks
    the rest    one that has all chunks of it: it listens, compares, and recognises what no chunk holds

One process, the embedded engine, CPU time of all threads; loading is not counted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from figures import Bound, Report, median, parser, row, significant
from in_process import EMBEDDED_MODEL, embedded_model_folder
from recordings import write_long_recording

from voiceforge.services.chunk_codec import ChunkCodec
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.moonshine_ort import MoonshineOrt
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.batch import transcribe
from voiceforge.speech.pipeline.checkpoints import CHUNK_S, Chunk, ChunkDone, WorkEvent
from voiceforge.speech.pipeline.listen import LocalListener, listen_options
from voiceforge.speech.transcript import Finished, ModelRef, Transcript

_OPTIONS = TranscribeOptions()

P = ParamSpec("P")
T = TypeVar("T")


def main() -> None:
    made = parser(__doc__, rounds=1)
    made.add_argument("--seconds", type=float, default=3600.0, help="length of the recording (default 3600)")
    made.add_argument("--threads", type=int, default=2, help="decode threads (default %(default)s)")
    args = made.parse_args()
    model = ModelRef(EMBEDDED_MODEL, "benchmark")
    batcher = Batcher(MoonshineOrt(embedded_model_folder(), model, parallel_decodes=args.threads))
    listener = LocalListener()
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        flac = Path(folder) / "long.flac"
        audio_s = write_long_recording(flac, args.speech, args.seconds)
        mp3 = _as_mp3(flac)
        _transcribe(sample_recordings()[0], batcher, listener)
        for number in range(args.rounds):
            print(f"round {number + 1}/{args.rounds}", file=sys.stderr)
            found["listening, flac"].append(_cpu_s(_listen, flac, batcher, listener)[0])
            found["listening, mp3"].append(_cpu_s(_listen, mp3, batcher, listener)[0])
            cpu_s, whole = _cpu_s(_transcribe, flac, batcher, listener)
            found["whole"].append(cpu_s)
            chunks = [event.chunk for event in whole if isinstance(event, ChunkDone)]
            cpu_s, rest = _cpu_s(_transcribe, flac, batcher, listener, chunks)
            found["the rest"].append(cpu_s)
            if _document(rest) != _document(whole):
                raise SystemExit("the run that went on ended in another document")
    batcher.close(grace_s=0)
    medians = {name: median(values) for name, values in found.items()}
    codec = ChunkCodec()
    packed = [codec.pack("job", chunk) for chunk in chunks]
    pack_s, _ = _cpu_s(lambda: [codec.pack("job", chunk) for chunk in chunks])
    unpack_s, _ = _cpu_s(lambda: [codec.unpack("job", data) for data in packed])
    report = Report("resume", details=medians | {"audio_s": audio_s, "chunks": len(chunks)})
    share = medians["the rest"] / medians["whole"]
    report.rows = [
        row(f"listening to {audio_s / 60:.0f} min of FLAC, CPU time", medians["listening, flac"], "s"),
        row("… of MP3", medians["listening, mp3"], "s"),
        row(
            "a run that has all chunks, CPU time against a whole one",
            share,
            reference=f"{significant(medians['whole'])} s",
            bound=Bound(0.25, "at most"),
        ),
        row("chunks of it", len(chunks)),
        row("… the largest, packed", max(map(len, packed)) / 1000, "kB"),
        row("… CPU time to pack one", 1000 * pack_s / len(chunks), "ms"),
        row("… to unpack one", 1000 * unpack_s / len(chunks), "ms"),
    ]
    report.finish(args.json)


def _as_mp3(path: Path) -> Path:
    import soundfile

    target = path.with_suffix(".mp3")
    with soundfile.SoundFile(target, "w", SAMPLE_RATE_HZ, 1, format="MP3") as file:
        for block in soundfile.blocks(path, 60 * SAMPLE_RATE_HZ, dtype="float32"):
            file.write(block)
    return target


def _listen(path: Path, batcher: Batcher, listener: LocalListener) -> int:
    with closing(listener.open(path, listen_options(_OPTIONS, batcher.capabilities))) as recording:
        return sum(1 for _ in recording.events())


def _transcribe(
    path: Path, batcher: Batcher, listener: LocalListener, done: Sequence[Chunk] = ()
) -> list[WorkEvent]:
    ticket = batcher.open()
    try:
        with closing(listener.open(path, listen_options(_OPTIONS, ticket.capabilities))) as recording:
            events = transcribe(recording.events(), ticket, None, _OPTIONS, done=done, chunk_s=CHUNK_S)
            return list(events)
    finally:
        ticket.close()


def _document(events: Sequence[WorkEvent]) -> Transcript:
    """But for what it took."""
    last = events[-1]
    assert isinstance(last, Finished)
    return replace(last.transcript, processing_s=0.0, rtf=0.0)


def _cpu_s(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[float, T]:
    before = time.process_time()
    made = work(*args, **kwargs)
    return time.process_time() - before, made


if __name__ == "__main__":
    main()
