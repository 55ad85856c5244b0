"""The embedded model's own .ort files, driven by onnxruntime as they are: what our engine is compared with.

Greedy, one intra-op thread, no spinning; only rows of equal length share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.moonshine_tokens import END_TOKEN, START_TOKEN, MoonshineTokens

_TOKENS_PER_S = 6.5
_SPARE_TOKENS = 8


class OrtFiles:
    def __init__(self, folder: Path) -> None:
        self._encoder = _session(folder / "encoder_model.ort")
        self._decoder = _session(folder / "decoder_model_merged.ort")
        self._tokens = MoonshineTokens.load(folder / "tokenizer.bin")
        self._past = [i for i in self._decoder.get_inputs() if i.name.startswith("past_key_values")]
        self._outputs = [output.name for output in self._decoder.get_outputs()]

    def texts(self, windows: Sequence[NDArray[np.float32]]) -> list[str]:
        """The text of each window; all must have the same length."""
        batch = np.stack(windows)
        present = np.ones(batch.shape, np.int64)
        states = self._encoder.run(None, {"input_values": batch, "attention_mask": present})[0]
        # Asks for a mask of samples and strides it by 384 itself; all ones, since nothing is padded.
        feed: dict[str, Any] = {
            "encoder_attention_mask": present,
            "encoder_hidden_states": states,
            "input_ids": np.full((len(windows), 1), START_TOKEN, np.int64),
            "use_cache_branch": np.array([False]),
        }
        for past in self._past:
            feed[past.name] = np.zeros((len(windows), past.shape[1], 0, past.shape[3]), np.float32)
        rows: list[list[int]] = [[] for _ in windows]
        finished = [False] * len(windows)
        for _ in range(int(batch.shape[1] / SAMPLE_RATE_HZ * _TOKENS_PER_S) + _SPARE_TOKENS):
            outputs = dict(zip(self._outputs, self._decoder.run(None, feed), strict=True))
            chosen = outputs["logits"][:, -1].argmax(axis=-1)
            for index, token in enumerate(chosen):
                finished[index] = finished[index] or int(token) == END_TOKEN
                if not finished[index]:
                    rows[index].append(int(token))
            if all(finished):
                break
            for past in self._past:
                present_name = past.name.replace("past_key_values", "present")
                if ".decoder." in past.name or not feed["use_cache_branch"][0]:
                    feed[past.name] = outputs[present_name]
            feed["use_cache_branch"] = np.array([True])
            feed["input_ids"] = chosen.reshape(-1, 1).astype(np.int64)
        return [self._tokens.text(row) for row in rows]


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
