"""Headerless PCM as it arrives, in pieces of any size → 16 kHz rows. Part of a sample waits for its rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.audio.conform import Conformer, Rows
from voiceforge.speech.audio.pcm import Pcm, to_float32
from voiceforge.speech.options import RawEncoding, RawFormat

SAMPLE_BYTES: Mapping[RawEncoding, int] = {"s16le": 2, "s32le": 4, "f32le": 4, "mulaw": 1, "alaw": 1}


class PushedPcm:
    """Not thread-safe.

    Args:
        rows: 1 mixes to mono; as many as there are channels keeps them apart.
    """

    def __init__(self, raw: RawFormat, rows: int) -> None:
        self._channels = raw.channels
        self._rate_hz = raw.sample_rate_hz
        self._frame_bytes = SAMPLE_BYTES[raw.encoding] * raw.channels
        self._to_float = _reader(raw.encoding)
        self._conformer = Conformer(rows)
        self._rest = b""

    def push(self, data: bytes | memoryview) -> list[Rows]:
        if self._rest:
            data = self._rest + bytes(data)
        whole = len(data) - len(data) % self._frame_bytes
        self._rest = bytes(data[whole:])
        if not whole:
            return []
        samples = self._to_float(data[:whole]).reshape(-1, self._channels)
        return self._conformer.push(Pcm(samples, self._rate_hz))

    def flush(self) -> list[Rows]:
        """What the resampler still holds; part of a sample is left out. The last call."""
        return self._conformer.flush()


def _reader(encoding: RawEncoding) -> Callable[[bytes | memoryview], NDArray[np.float32]]:
    match encoding:
        case "s16le":
            return lambda data: to_float32(np.frombuffer(data, "<i2"))
        case "s32le":
            return lambda data: to_float32(np.frombuffer(data, "<i4"))
        case "f32le":
            return lambda data: to_float32(np.frombuffer(data, "<f4"))
        case "mulaw":
            table = _mulaw_table()
        case "alaw":
            table = _alaw_table()
    return lambda data: table[np.frombuffer(data, np.uint8)]


def _mulaw_table() -> NDArray[np.float32]:
    """ITU-T G.711: all bits inverted; sign, three bits of exponent, four of mantissa."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = (((mantissa.astype(np.int32) << 3) + 0x84) << exponent) - 0x84
    return _signed(magnitude, negative=(code & 0x80) != 0)


def _alaw_table() -> NDArray[np.float32]:
    """ITU-T G.711: every other bit inverted; sign, three bits of exponent, four of mantissa."""
    code = np.arange(256, dtype=np.uint8) ^ np.uint8(0x55)
    exponent, mantissa = (code >> 4) & 7, code & 15
    base = (mantissa.astype(np.int32) << 4) + 8
    magnitude = np.where(exponent == 0, base, (base + 0x100) << np.maximum(exponent.astype(np.int32) - 1, 0))
    return _signed(magnitude, negative=(code & 0x80) == 0)


def _signed(magnitude: NDArray[Any], *, negative: NDArray[Any]) -> NDArray[np.float32]:
    return to_float32(np.where(negative, -magnitude, magnitude).astype(np.int16))
