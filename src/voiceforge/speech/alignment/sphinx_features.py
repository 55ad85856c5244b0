"""Waveform → mel cepstra as pocketsphinx's English acoustic model expects them.

The library computes them itself when given raw audio, but then normalises well only if it gets the
whole utterance in one call, and one call holds the GIL to its end (13 ms per second of audio). From
cepstra that are already normalised the search can be fed in small steps. Its noise removal is left
out: it smears pauses into the words around them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform

FRAMES_PER_S = 100
N_CEPSTRA = 13

# The front end the model was trained with: feat.params beside it, and fe_sigproc.c for the formulas.
_STEP = SAMPLE_RATE_HZ // FRAMES_PER_S
_FRAME = 410  # 25.625 ms
_FFT = 512
_FILTERS = 25
_LOWEST_HZ, _HIGHEST_HZ = 130.0, 6800.0
_LIFTER = 22
_PREEMPHASIS = 0.97
_FULL_SCALE = 32767.0
_QUIETEST_PEAK = 1e-3
_FLOOR = 3e4
"""Added to every filter's power: about that of rounding to 16 bits, so that digital silence has a log."""


class SphinxFeatures:
    """Immutable tables; safe to share between threads."""

    def __init__(self) -> None:
        self._window = np.hamming(_FRAME).astype(np.float32)
        self._filters = _mel_filters()
        self._cosines = _liftered_cosines()

    def cepstra(self, samples: Waveform) -> NDArray[np.float32]:
        """Mel cepstra with zero mean over time, shape (n_frames, 13); n_frames 0 below 26 ms.

        Args:
            samples: float32, shape (n_samples,), 16 kHz mono, in [-1, 1].
        """
        if samples.size < _FRAME:
            return np.zeros((0, N_CEPSTRA), np.float32)
        clean = np.nan_to_num(samples).astype(np.float32)
        # to full scale: loudness leaves with the mean, but the floor must stay below quiet speech
        scaled = clean * np.float32(_FULL_SCALE / max(_QUIETEST_PEAK, float(np.abs(clean).max())))
        emphasised = scaled.copy()
        emphasised[1:] -= np.float32(_PREEMPHASIS) * scaled[:-1]
        frames = np.lib.stride_tricks.sliding_window_view(emphasised, _FRAME)[::_STEP]
        spectra = np.fft.rfft(frames * self._window, _FFT, axis=1)
        power = (spectra.real**2 + spectra.imag**2).astype(np.float32)
        # einsum, not @: a BLAS product wakes a thread per core that goes on spinning after the work
        mel = np.einsum("tf,fm->tm", power, self._filters)
        cepstra: NDArray[np.float32] = np.einsum("tm,mc->tc", np.log(mel + np.float32(_FLOOR)), self._cosines)
        cepstra -= cepstra.mean(axis=0)
        return np.ascontiguousarray(cepstra, dtype=np.float32)


def _mel_filters() -> NDArray[np.float32]:
    """Triangles of unit area with corners on FFT bins, shape (n_bins, n_filters)."""
    bin_hz = SAMPLE_RATE_HZ / _FFT
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (_LOWEST_HZ, _HIGHEST_HZ))
    corners = 700.0 * (10.0 ** (np.linspace(low, high, _FILTERS + 2) / 2595.0) - 1.0)
    corners = np.floor(corners / bin_hz + 0.5) * bin_hz
    hz = np.arange(_FFT // 2 + 1) * bin_hz
    filters = np.zeros((hz.size, _FILTERS), np.float32)
    for i, (left, centre, right) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        slopes = np.minimum((hz - left) / (centre - left), (right - hz) / (right - centre))
        filters[:, i] = np.maximum(0.0, slopes) * 2.0 / (right - left)
    return filters


def _liftered_cosines() -> NDArray[np.float32]:
    """Unitary DCT-II with sinusoidal liftering folded in, shape (n_filters, n_cepstra)."""
    order = np.arange(N_CEPSTRA)
    cosines = np.cos(np.pi / _FILTERS * (np.arange(_FILTERS)[:, None] + 0.5) * order)
    cosines *= np.sqrt(2.0 / _FILTERS)
    cosines[:, 0] *= np.sqrt(0.5)
    lifter = 1.0 + _LIFTER / 2.0 * np.sin(order * np.pi / _LIFTER)
    return np.asarray(cosines * lifter, dtype=np.float32)
