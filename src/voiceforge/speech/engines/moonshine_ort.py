"""Moonshine on onnxruntime: the embedded English engine.

Windows go in; one hypothesis with one segment each comes out. The encoder runs window by window
(its front end normalises over time, so padding would change the text), the decoder runs over all
windows at once, padded frames masked. Which windows share a call never changes their text.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.errors import EngineFailed, ModelNotInstalled
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines import moonshine_graph as graph
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis, HypothesisSegment
from voiceforge.speech.engines.moonshine_tokens import END_TOKEN, START_TOKEN, MoonshineTokens
from voiceforge.speech.engines.ort_errors import ort_errors
from voiceforge.speech.engines.ort_weights import read_ort_weights
from voiceforge.speech.onnx.runtime import onnxruntime
from voiceforge.speech.transcript.types import Language, ModelRef

_ENCODER_FILE = "encoder_model.ort"
_DECODER_FILE = "decoder_model_merged.ort"
_TOKENIZER_FILE = "tokenizer.bin"
MODEL_FILES = (_ENCODER_FILE, _DECODER_FILE, _TOKENIZER_FILE)

_TOKENS_PER_SECOND = 6.5  # the model's own bound on how fast English can be (moonshine-voice)
_SPARE_TOKENS = 8
_LEAD_SAMPLES, _TAIL_SAMPLES = 800, 1_600
"""Silence put around a window. The model ends sentences better, and invents fewer, when it hears them
end: over the English clips of the benchmark set 84 inserted words became 58 (docs/decisions/0005). It
also makes the shortest window long enough for the encoder's three convolutions."""
_FRAME_STEP = 64
"""Frames are padded to a multiple of this, also for a row alone: vectorised sums then add the same
numbers in the same order whatever the padding, and a row's text cannot depend on its neighbours."""
_MOST_ENCODER_THREADS = 4
"""A window alone is heard a quarter sooner when the encoder takes an idle second core (measured: 110 ms
for 10 s in place of 145), for 4 % more CPU; the decoder's steps are too small to share. The numbers are
the same to the last bit. Parallelism in the large comes from concurrent calls."""
_MASKED = np.float32(-1e9)


@dataclass(slots=True)
class _Row:
    """One window on its way through the decoder."""

    index: int
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def take(self, token: int, logprob: float) -> bool:
        """Append one token; True when the row is finished."""
        self.logprobs.append(logprob)
        if token == END_TOKEN:
            return True
        self.tokens.append(token)
        return len(self.tokens) >= self.max_tokens


class MoonshineOrt:
    """An `Engine`. Thread-safe: `decode` may run in several threads at once.

    Args:
        model_dir: holds `encoder_model.ort`, `decoder_model_merged.ort` and `tokenizer.bin`.
        model: how results name it.
        parallel_decodes: threads that will call `decode`; every call uses one core, and in the encoder also
            those that no other call uses.

    Raises:
        ModelNotInstalled: a file is missing.
        EngineFailed: they are damaged, or of another model.
    """

    def __init__(self, model_dir: Path, model: ModelRef, *, parallel_decodes: int = 1) -> None:
        missing = [name for name in MODEL_FILES if not (model_dir / name).is_file()]
        if missing:
            raise ModelNotInstalled(f"model {model.id} lacks {', '.join(missing)}", field="model")
        self._model = model
        self._capabilities = Capabilities(
            languages=frozenset({"en"}),
            longest_window_s=30.0,
            best_window_s=12.0,  # measured: 16 and 20 s cost speed and words (docs/decisions/0005)
            max_batch_rows=4,  # measured: 8 decode no faster and hold twice the memory
            parallel_decodes=parallel_decodes,
        )
        with ThreadPoolExecutor(1) as beside:  # half of the loading: onnxruntime lets others run meanwhile
            encoder = beside.submit(
                _session,
                str(model_dir / _ENCODER_FILE),
                threads=min(parallel_decodes, _MOST_ENCODER_THREADS),
            )
            self._tokens = MoonshineTokens.load(model_dir / _TOKENIZER_FILE)
            weights = read_ort_weights(model_dir / _DECODER_FILE, root="/model/decoder/")
            try:
                cross, step = graph.build_cross_attention(weights), graph.build_step(weights)
                vocabulary = graph.vocabulary_size(weights)
            except (KeyError, ValueError, IndexError) as error:
                raise EngineFailed(
                    f"the decoder file of model {model.id} is not a Moonshine tiny's"
                ) from error
            if len(self._tokens) != vocabulary:
                raise EngineFailed(f"the tokenizer file of model {model.id} is not that of its decoder")
            self._cross = _session(cross)
            self._step = _session(step)
            self._encoder = encoder.result()
        self._cross_outputs = [output.name for output in self._cross.get_outputs()]
        self._step_outputs = [output.name for output in self._step.get_outputs()]

    @property
    def model(self) -> ModelRef:
        return self._model

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def decode(self, windows: Sequence[Waveform], options: DecodeOptions) -> list[Hypothesis]:
        if self._encoder is None:
            raise EngineFailed(f"model {self._model.id} is closed")
        if not windows:
            return []
        try:
            states = [self._encode(window) for window in windows]
            rows = [
                _Row(i, int(len(w) / SAMPLE_RATE_HZ * _TOKENS_PER_SECOND) + _SPARE_TOKENS)
                for i, w in enumerate(windows)
            ]
            self._search(self._first_feed(states), rows)
        except ort_errors() as error:
            raise EngineFailed("the speech model failed on this audio") from error
        return [self._hypothesis(row, len(windows[row.index]) / SAMPLE_RATE_HZ) for row in rows]

    def close(self) -> None:
        self._encoder = self._cross = self._step = None

    def _encode(self, window: Waveform) -> NDArray[np.float32]:
        """Encoder states of one window, shape (1, n_frames, WIDTH)."""
        batch = np.pad(window, (_LEAD_SAMPLES, _TAIL_SAMPLES)).astype(np.float32, copy=False)[None]
        states: NDArray[np.float32] = self._encoder.run(
            None, {"input_values": batch, "attention_mask": np.ones(batch.shape, np.int64)}
        )[0]
        return states

    def _search(self, feed: dict[str, Any], rows: Sequence[_Row]) -> None:
        """Greedy decoding of all rows together, in place. Finished rows leave once half have."""
        active = list(rows)
        token = np.full((len(active), 1), START_TOKEN, np.int64)
        finished = [False] * len(active)
        for position in range(graph.MAX_POSITIONS):
            feed["token"] = _tensor(token)
            feed["position"] = _tensor(np.array([position], np.int64))
            outputs = dict(
                zip(self._step_outputs, self._step.run_with_ort_values(self._step_outputs, feed), strict=True)
            )
            token = outputs["next_token"].numpy()
            logprob = outputs["logprob"].numpy()
            for i, row in enumerate(active):
                finished[i] = finished[i] or row.take(int(token[i, 0]), float(logprob[i, 0]))
            if all(finished):
                return
            for layer in range(graph.N_LAYERS):
                feed[f"past_key_{layer}"] = outputs[f"key_{layer}"]
                feed[f"past_value_{layer}"] = outputs[f"value_{layer}"]
            if 2 * sum(finished) >= len(active):
                keep = [i for i, done in enumerate(finished) if not done]
                feed = {
                    name: _tensor(value.numpy()[keep])
                    for name, value in feed.items()
                    if name not in ("token", "position")
                }
                active = [active[i] for i in keep]
                token = token[keep]
                finished = [False] * len(active)

    def _first_feed(self, states: list[NDArray[np.float32]]) -> dict[str, Any]:
        """What the step graph is fed before the first token: the cross-attention of every row, padded
        frames masked, and no past."""
        n_rows = len(states)
        n_frames = -(-max(state.shape[1] for state in states) // _FRAME_STEP) * _FRAME_STEP
        mask = np.zeros((n_rows, 1, 1, n_frames), np.float32)
        keys = (graph.N_HEADS, graph.HEAD_DIM, n_frames)
        values = (graph.N_HEADS, n_frames, graph.HEAD_DIM)
        crosses = {
            name: np.zeros((n_rows, *(keys if "key" in name else values)), np.float32)
            for name in self._cross_outputs
        }
        for row, state in enumerate(states):
            own = state.shape[1]
            mask[row, ..., own:] = _MASKED
            for name, part in zip(self._cross_outputs, self._cross.run(None, {"states": state}), strict=True):
                if "key" in name:
                    crosses[name][row, ..., :own] = part[0]
                else:
                    crosses[name][row, :, :own] = part[0]
        feed: dict[str, Any] = {name: _tensor(cross) for name, cross in crosses.items()}
        feed["mask"] = _tensor(mask)
        nothing = np.zeros((n_rows, graph.N_HEADS, 0, graph.HEAD_DIM), np.float32)
        for layer in range(graph.N_LAYERS):
            feed[f"past_key_{layer}"] = feed[f"past_value_{layer}"] = _tensor(nothing)
        return feed

    def _hypothesis(self, row: _Row, duration_s: float) -> Hypothesis:
        text = self._tokens.text(row.tokens)
        language = Language("en", 1.0)
        if not text:
            return Hypothesis((), language)
        word_logprobs = self._tokens.word_logprobs(row.tokens, row.logprobs[: len(row.tokens)])
        raw = text.encode()
        segment = HypothesisSegment(
            start=0.0,
            end=duration_s,
            text=text,
            avg_logprob=float(np.mean(row.logprobs)),
            word_confidences=tuple(float(np.exp(lp)) for lp in word_logprobs),
            tokens=tuple(row.tokens),
            compression_ratio=len(raw) / len(zlib.compress(raw)),
        )
        return Hypothesis((segment,), language)


def _session(model: str | bytes, threads: int = 1) -> Any:
    options = onnxruntime().SessionOptions()
    # None spinning: that costs three times the time beside a busy neighbour.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime().InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except ort_errors() as error:
        raise EngineFailed("onnxruntime cannot load the model's files") from error


def _tensor(value: NDArray[Any]) -> Any:
    return onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
