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
from voiceforge.speech.engines.base import (
    Capabilities,
    DecodeOptions,
    Hypothesis,
    HypothesisSegment,
    Wanted,
    always_wanted,
    go_on,
)
from voiceforge.speech.engines.device import cpu_features
from voiceforge.speech.engines.moonshine_encoder_graph import build_encoder, frames_of
from voiceforge.speech.engines.moonshine_rows import PAST_NAMES, DecoderRows
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
_SIGNED_WEIGHTS_NEED = frozenset({"AVX512-VNNI", "AVX-VNNI"})


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


class _Steps:
    """The step graph over the rows that are left. What it reads and writes stays where it is.

    token: int64 (rows, 1), the last one of each row. logprob: float32 (rows, 1), of that token.
    """

    def __init__(self, session: Any, heard: DecoderRows, tokens: NDArray[np.int64]) -> None:
        self.token = np.array(tokens, np.int64)[:, None]
        self.logprob = np.zeros((len(tokens), 1), np.float32)
        self._last_position = np.zeros(len(tokens), np.int32)
        self._length = np.zeros((), np.int32)
        self._session = session
        self._binding = session.io_binding()
        arrays: dict[str, NDArray[Any]] = {
            **heard.arrays(),
            "token": self.token,
            "last_position": self._last_position,
            "length": self._length,
        }
        inputs = {name: _tensor(array) for name, array in arrays.items()}
        outputs = {name.removeprefix("past_"): inputs[name] for name in PAST_NAMES}
        outputs |= {"next_token": inputs["token"], "logprob": _tensor(self.logprob)}
        self._held = (inputs, outputs)
        for name, value in inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, position: int) -> None:
        self._last_position.fill(position)
        self._length.fill(position + 1)
        self._session.run_with_iobinding(self._binding)


class MoonshineOrt:
    """An `Engine`. Thread-safe: `decode` may run in several threads at once.

    Args:
        model_dir: holds `encoder_model.ort`, `decoder_model_merged.ort` and `tokenizer.bin`.
        model: how results name it.
        parallel_decodes: threads that will call `decode`; every call uses one core, and in the encoder also
            those that no other call uses.
        signed_weights: multiply by int8 weights in the encoder, with the same results; None: where this CPU
            can, which is three times as fast there.

    Raises:
        ModelNotInstalled: a file is missing.
        EngineFailed: they are damaged, or of another model.
    """

    def __init__(
        self,
        model_dir: Path,
        model: ModelRef,
        *,
        parallel_decodes: int = 1,
        signed_weights: bool | None = None,
    ) -> None:
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
        if signed_weights is None:
            signed_weights = not _SIGNED_WEIGHTS_NEED.isdisjoint(cpu_features())
        with ThreadPoolExecutor(1) as beside:  # half of the loading: onnxruntime lets others run meanwhile
            decoder = beside.submit(read_ort_weights, model_dir / _DECODER_FILE, root="/model/decoder/")
            self._tokens = MoonshineTokens.load(model_dir / _TOKENIZER_FILE)
            encoder_weights = read_ort_weights(model_dir / _ENCODER_FILE, root="/")
            weights = decoder.result()
            try:
                loading = beside.submit(_session, graph.build_step(weights))
                vocabulary = graph.vocabulary_size(weights)
                encoder = build_encoder(encoder_weights, weights, signed=signed_weights)
            except (KeyError, ValueError, IndexError) as error:
                raise EngineFailed(f"the files of model {model.id} are not a Moonshine tiny's") from error
            if len(self._tokens) != vocabulary:
                raise EngineFailed(f"the tokenizer file of model {model.id} is not that of its decoder")
            self._encoder = _session(encoder, threads=min(parallel_decodes, _MOST_ENCODER_THREADS))
            self._step = loading.result()

    @property
    def model(self) -> ModelRef:
        return self._model

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def decode(
        self, windows: Sequence[Waveform], options: DecodeOptions, wanted: Wanted = always_wanted
    ) -> list[Hypothesis]:
        if self._encoder is None:
            raise EngineFailed(f"model {self._model.id} is closed")
        if not windows:
            return []
        try:
            rows = [
                _Row(i, int(len(w) / SAMPLE_RATE_HZ * _TOKENS_PER_SECOND) + _SPARE_TOKENS)
                for i, w in enumerate(windows)
            ]
            self._search(self._hear(windows, max(row.max_tokens for row in rows), wanted), rows, wanted)
        except ort_errors() as error:
            raise EngineFailed("the speech model failed on this audio") from error
        return [self._hypothesis(row, len(windows[row.index]) / SAMPLE_RATE_HZ) for row in rows]

    def close(self) -> None:
        self._encoder = self._step = None

    def _hear(self, windows: Sequence[Waveform], most_tokens: int, wanted: Wanted) -> DecoderRows:
        own_frames = [frames_of(_LEAD_SAMPLES + len(window) + _TAIL_SAMPLES) for window in windows]
        n_frames = -(-max(own_frames) // _FRAME_STEP) * _FRAME_STEP
        heard = DecoderRows(own_frames, n_frames, min(most_tokens, graph.MAX_POSITIONS))
        for row, window in enumerate(windows):
            go_on(wanted)
            audio = np.pad(window, (_LEAD_SAMPLES, _TAIL_SAMPLES)).astype(np.float32, copy=False)[None]
            missing = np.array([n_frames - own_frames[row]], np.int64)
            binding = self._encoder.io_binding()
            binding.bind_cpu_input("audio", audio)
            binding.bind_cpu_input("missing", missing)
            for name, place in heard.places(row).items():
                binding.bind_output(name, "cpu", 0, np.float32, place.shape, place.ctypes.data)
            self._encoder.run_with_iobinding(binding)
        return heard

    def _search(self, heard: DecoderRows, rows: Sequence[_Row], wanted: Wanted) -> None:
        """Greedy decoding of all rows together, in place. Rows leave as they finish."""
        active = list(rows)
        steps = _Steps(self._step, heard, np.full(len(active), START_TOKEN))
        for position in range(graph.MAX_POSITIONS):
            go_on(wanted)
            steps.run(position)
            finished = [
                row.take(int(steps.token[i, 0]), float(steps.logprob[i, 0])) for i, row in enumerate(active)
            ]
            if all(finished):
                return
            if any(finished):
                keep = _without(heard, finished)
                active = [active[i] for i in keep]
                steps = _Steps(self._step, heard, steps.token[keep, 0])

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


def _without(heard: DecoderRows, finished: Sequence[bool]) -> list[int]:
    """Let the finished rows leave; returns which rows there are now, by where they were."""
    places = list(range(len(finished)))
    for row in reversed(range(len(finished))):
        if finished[row]:
            heard.leave(row)
            places[row] = places[-1]
            places.pop()
    return places


def _session(model: bytes, threads: int = 1) -> Any:
    options = onnxruntime().SessionOptions()
    # None spinning: that costs three times the time beside a busy neighbour.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime().InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except ort_errors() as error:
        raise EngineFailed("onnxruntime cannot load the model's files") from error
    # It would hold the model's bytes beside its own copy of them, 35 MB, for a device that fails.
    session._model_bytes = None
    return session


def _tensor(value: NDArray[Any]) -> Any:
    """Shares the array's memory."""
    return onnxruntime().OrtValue.ortvalue_from_numpy(value)
