"""The one shape in which audio travels through the core."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
"""Every engine, the VAD and the aligner work at 16 kHz."""

Waveform = NDArray[np.float32]
"""samples: float32, shape (n_samples,), 16 kHz mono, in [-1, 1]."""
