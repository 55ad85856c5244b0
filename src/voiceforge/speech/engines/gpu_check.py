"""Does the GPU give back what it was given? A question for CTranslate2, asked without any model."""

from __future__ import annotations

import time

import numpy as np

from voiceforge.errors import DependencyMissing, EngineFailed

_ROWS, _COLUMNS = 1024, 16_384  # 64 MiB of float32


def gpu_round_trip() -> float:
    """Copy numbers to the first GPU and back, and compare them; returns bytes per second over both ways.

    Raises:
        DependencyMissing: CTranslate2 is not installed.
        EngineFailed: the GPU cannot be used, or returned something else.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise DependencyMissing(
            "the GPU is reached through faster-whisper: pip install 'voiceforge[whisper]'"
        ) from error
    sent = np.arange(_ROWS * _COLUMNS, dtype=np.float32).reshape(_ROWS, _COLUMNS)
    try:
        view = ctranslate2.StorageView.from_array(sent)
        view.to_device(ctranslate2.Device.cuda)  # the first use starts the driver
        started = time.perf_counter()
        back = view.to_device(ctranslate2.Device.cuda).to_device(ctranslate2.Device.cpu)
        seconds = time.perf_counter() - started
    except (RuntimeError, ValueError) as error:
        raise EngineFailed(f"the GPU cannot be used: {' '.join(str(error).split())}") from error
    if not np.array_equal(np.asarray(back), sent):
        raise EngineFailed("the GPU gave back other numbers than it was given")
    return 2 * sent.nbytes / seconds
