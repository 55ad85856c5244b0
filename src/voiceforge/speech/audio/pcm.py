"""What the decoders hand to the rest of the room: stretches of PCM at the source's own rate.

Knows neither decoder; both speak `PcmReader`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voiceforge.errors import UnreadableAudio

MIN_RATE_HZ = 4_000
MAX_RATE_HZ = 384_000
MAX_SOURCE_CHANNELS = 64

_LOUDEST = 2.0**31
"""Float files are meant to lie in [-1, 1]; some carry integers as floats. Beyond that it is damage."""


class NotForThisReader(Exception):
    """Inside this room only: another reader may do better."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What was found, in ffmpeg's names.

    duration_s: as declared by the container, None where it declares none; not a promise.
    """

    container: str
    codec: str
    sample_rate_hz: int
    channels: int
    duration_s: float | None
    has_video: bool = False


@dataclass(frozen=True, slots=True)
class Pcm:
    """A stretch as decoded.

    samples: float32, shape (n_samples, n_channels), any strides, finite.
    mono_weights: share of each channel in a mono mix, summing to 1; None: all equal.
    """

    samples: NDArray[np.float32]
    sample_rate_hz: int
    mono_weights: tuple[float, ...] | None = None


class PcmReader(Protocol):
    """One pass over one file, or glimpses here and there."""

    info: AudioInfo
    duration_trusted: bool
    """The declared duration comes from the file's own structure, not from an estimate."""
    truncated: bool
    """Known after `pieces` ended: the file stops before what it declares."""
    unread: bool
    """Known after `pieces` ended: there is more in the file that this reader cannot get at."""

    def pieces(self) -> Iterator[Pcm]: ...

    def glimpse(self, at_s: float, length_s: float) -> Iterator[Pcm]:
        """About so much from about there, or less; nothing beyond the end.

        Raises: UnreadableAudio.
        """
        ...

    def close(self) -> None: ...


def check_shape(sample_rate_hz: int, channels: int) -> None:
    """Refuse what no recording has, before anything is allocated for it.

    Raises: UnreadableAudio.
    """
    if channels < 1:
        raise UnreadableAudio("the file declares audio with 0 channels")
    if channels > MAX_SOURCE_CHANNELS:
        raise UnreadableAudio(
            f"the file declares {channels} channels; at most {MAX_SOURCE_CHANNELS} are read"
        )
    if not MIN_RATE_HZ <= sample_rate_hz <= MAX_RATE_HZ:
        raise UnreadableAudio(
            f"the file declares a sample rate of {sample_rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} are read"
        )


def to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Full scale → [-1, 1]; of floats only wild values change."""
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - np.float32(128)) * np.float32(1 / 128)
    if np.issubdtype(values.dtype, np.integer):
        scale = np.float32(1 / -float(np.iinfo(values.dtype).min))
        # int32 times float32 would be float64
        scaled: NDArray[np.float32] = np.multiply(values, scale, dtype=np.float32, casting="unsafe")
        return scaled
    return without_wild_values(values.astype(np.float32, copy=False))


def without_wild_values(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same samples; if any is not a number or beyond all sense, a copy with those mended."""
    flat = samples.ravel(order="K")
    with np.errstate(invalid="ignore", over="ignore"):
        energy = float(np.dot(flat, flat))
    if energy <= _LOUDEST**2:  # one pass: no sample is then beyond, and none is NaN
        return samples
    mended = np.nan_to_num(samples, copy=True, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(mended, -_LOUDEST, _LOUDEST, out=mended)
