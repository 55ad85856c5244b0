"""How much one Whisper does at a time on a device: calls, threads, rows. Pure; the figures behind it are in
docs/engines.md."""

from __future__ import annotations

from dataclasses import dataclass

from voiceforge.speech.engines.device import DeviceChoice

HEAVY_MODEL_BYTES = 200_000_000
"""From here on (small in int8) a step of the decoder takes its time for reading weights, and rows share
them. Below, the rows' own states are what it reads, and a batch is slower than its rows one by one."""

_ROWS_OF_HEAVY = 2
"""Four rows of small.en gain 14 % over one, two gain 9 %; but a window that becomes urgent waits for the
batch before it, and a batch of four on a large model takes minutes."""

_ROWS_ON_CUDA = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """calls: decodes at the same time. workers: of them those that the runtime works on, each on `threads`
    CPU threads. rows: windows of a call. encoder_rows: of these so many are encoded together."""

    calls: int
    workers: int
    threads: int
    rows: int
    encoder_rows: int


def layout(device: DeviceChoice, model_bytes: int, calls: int | None = None) -> Layout:
    """Choose.

    Args:
        model_bytes: of the weights' file.
        calls: None: as many as are best.
    """
    if device.device == "cuda":
        # A second call computes its spectrograms while the GPU works for the first.
        return Layout(calls or 2, 1, device.threads, _ROWS_ON_CUDA, _ROWS_ON_CUDA)
    # Decodes beside each other use cores better than threads within one.
    calls = calls or max(min(device.threads, 2), device.threads // 2)
    return Layout(
        calls=calls,
        workers=calls,
        threads=max(1, device.threads // calls),
        rows=_rows_on_cpu(device.compute_type, model_bytes),
        encoder_rows=1,  # its matrices are large already: company only takes memory
    )


def _rows_on_cpu(compute_type: str, model_bytes: int) -> int:
    if compute_type.startswith("int16"):
        return 1  # one scale for all rows: what a row says then depends on the others
    return _ROWS_OF_HEAVY if model_bytes >= HEAVY_MODEL_BYTES else 1
