"""The embedded engine against its promises, and against the model's own graph."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from voiceforge.errors import Cancelled, EngineFailed, ModelNotInstalled
from voiceforge.infra.modelstore.wheel import find_in_wheel
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import DecodeOptions, Hypothesis
from voiceforge.speech.engines.catalog import find_entry
from voiceforge.speech.engines.device import DeviceChoice, RunsOn, cpu_features
from voiceforge.speech.engines.moonshine_encoder_graph import build_encoder, frames_of
from voiceforge.speech.engines.moonshine_ort import MODEL_FILES, MoonshineOrt
from voiceforge.speech.engines.moonshine_tokens import END_TOKEN, START_TOKEN
from voiceforge.speech.engines.ort_errors import ort_errors
from voiceforge.speech.engines.ort_weights import QuantizedMatrix, read_ort_weights
from voiceforge.speech.engines.registry import load_engine
from voiceforge.speech.transcript.types import ModelRef

PLAIN = DecodeOptions()
ENCODER, DECODER, TOKENIZER = MODEL_FILES
NEEDS_VNNI = pytest.mark.skipif(
    {"AVX512-VNNI", "AVX-VNNI"}.isdisjoint(cpu_features()), reason="this CPU has no VNNI"
)
LENGTHS_S = (1.0, 4.5, 0.4, 2.3, 7.0, 0.1, 3.3, 5.0)


@pytest.fixture(scope="module")
def folder() -> Path:
    entry = find_entry("moonshine-tiny-en")
    assert entry
    found = find_in_wheel(entry)
    assert found
    return found.files.path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[MoonshineOrt]:
    engine = MoonshineOrt(folder, ModelRef("moonshine-tiny-en", "test"), parallel_decodes=2)
    yield engine
    engine.close()


def read(path: Path) -> Waveform:
    with open_audio(path) as stream:
        return np.concatenate([block[0] for block in stream.blocks()])


@pytest.fixture(scope="module")
def dickens() -> Waveform:
    return read(sample_recordings()[1])


@pytest.fixture(scope="module")
def windows(dickens: Waveform) -> list[Waveform]:
    """Eight windows of all lengths, one after the other."""
    starts = np.cumsum((0.0, *LENGTHS_S[:-1]))
    return [
        dickens[int(start * SAMPLE_RATE_HZ) : int((start + length) * SAMPLE_RATE_HZ)]
        for start, length in zip(starts, LENGTHS_S, strict=True)
    ]


@pytest.fixture(scope="module")
def alone(engine: MoonshineOrt, windows: list[Waveform]) -> list[Hypothesis]:
    return [engine.decode([window], PLAIN)[0] for window in windows]


# -- what shares a batch changes nothing: not the text, not one bit of a probability


@pytest.mark.parametrize("n_rows", range(1, 9))
def test_a_window_is_heard_the_same_whatever_the_size_of_the_batch(
    engine: MoonshineOrt, windows: list[Waveform], alone: list[Hypothesis], n_rows: int
) -> None:
    assert engine.decode(windows[:n_rows], PLAIN) == alone[:n_rows]


@pytest.mark.parametrize("seed", range(3))
def test_a_window_is_heard_the_same_whatever_its_place_and_neighbours(
    engine: MoonshineOrt, windows: list[Waveform], alone: list[Hypothesis], seed: int
) -> None:
    places = random.Random(seed).choices(range(len(windows)), k=6)
    assert engine.decode([windows[i] for i in places], PLAIN) == [alone[i] for i in places]


@pytest.mark.parametrize("neighbour", ["silence", "noise", "itself"])
def test_odd_neighbours_change_nothing(
    engine: MoonshineOrt, windows: list[Waveform], alone: list[Hypothesis], neighbour: str
) -> None:
    odd = {
        "silence": np.zeros(12 * SAMPLE_RATE_HZ, np.float32),
        "noise": np.random.default_rng(1).uniform(-1, 1, 12 * SAMPLE_RATE_HZ).astype(np.float32),
        "itself": windows[1],
    }[neighbour]
    assert engine.decode([odd, windows[1], odd, windows[0]], PLAIN)[1::2] == [alone[1], alone[0]]


def test_the_windows_are_speech_so_that_this_means_something(alone: list[Hypothesis]) -> None:
    texts = [segment.text for hypothesis in alone for segment in hypothesis.segments]
    assert sum(len(text.split()) for text in texts) > 40
    assert all(len(s.word_confidences) == len(s.text.split()) for h in alone for s in h.segments)


# -- the same numbers as the model's own encoder, by either kind of weights


@pytest.mark.parametrize("signed", [False, pytest.param(True, marks=NEEDS_VNNI)])
def test_the_encoder_computes_what_the_models_own_does(
    folder: Path, windows: list[Waveform], signed: bool
) -> None:
    """To the last bit: its states become keys and values as they would in the file's decoder."""
    import onnxruntime

    weights = read_ort_weights(folder / DECODER, root="/model/decoder/")
    own = onnxruntime.InferenceSession(str(folder / ENCODER))
    ours = onnxruntime.InferenceSession(
        build_encoder(read_ort_weights(folder / ENCODER, root="/"), weights, signed=signed)
    )
    names = [output.name for output in ours.get_outputs()]
    for window in windows:
        audio = np.pad(window, (800, 1_600))[None]
        (states,) = own.run(None, {"input_values": audio, "attention_mask": np.ones(audio.shape, np.int64)})
        heard = ours.run(names, {"audio": audio, "missing": np.array([3], np.int64)})
        for name, array in zip(names, heard, strict=True):
            _, part, layer = name.split("_")
            matrix = weights.matrices[f"layers.{layer}/encoder_attn/{part[0]}_proj"]
            frames_first = array[0].transpose((2, 0, 1) if part == "key" else (1, 0, 2))
            assert frames_first.shape[0] == frames_of(audio.shape[1]) + 3 == states.shape[1] + 3
            assert np.array_equal(frames_first[:-3].reshape(states[0].shape), product(states[0], matrix))
            assert not frames_first[-3:].any()


def product(states: NDArray[np.float32], matrix: QuantizedMatrix) -> NDArray[np.float32]:
    """As the file's decoder has it: states in 256 steps between their extremes, sums in whole numbers."""
    least, most = min(states.min(), np.float32(0)), max(states.max(), np.float32(0))
    scale = np.float32((most - least) / np.float32(255))
    zero = np.rint(-least / scale)
    codes = np.clip(np.rint(states / scale) + zero, 0, 255).astype(np.int32)
    sums = (codes - np.int32(zero)) @ (matrix.codes.astype(np.int32) - matrix.zero_point)
    return sums.astype(np.float32) * (scale * np.float32(matrix.scale))


def test_either_kind_of_weights_says_the_same(
    folder: Path, windows: list[Waveform], alone: list[Hypothesis]
) -> None:
    """The fixture takes what this CPU is quicker with."""
    unsigned = MoonshineOrt(folder, ModelRef("moonshine-tiny-en", "test"), signed_weights=False)
    assert unsigned.decode(windows, PLAIN) == alone
    unsigned.close()


# -- the same text as the model's own graph


@dataclass(frozen=True)
class Reference:
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


class OwnGraph:
    """The model's files driven as they are, one window at a time, greedily."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(str(folder / name), options) for name in (ENCODER, DECODER)
        )
        self._past = [i for i in self._decoder.get_inputs() if i.name.startswith("past_key_values")]
        self._outputs = [output.name for output in self._decoder.get_outputs()]

    def decode(self, window: Waveform) -> Reference:
        audio = window[None]
        present = np.ones(audio.shape, np.int64)
        (states,) = self._encoder.run(None, {"input_values": audio, "attention_mask": present})
        feed: dict[str, Any] = {
            "encoder_attention_mask": present,
            "encoder_hidden_states": states,
            "input_ids": np.array([[START_TOKEN]]),
            "use_cache_branch": np.array([False]),
            **{p.name: np.zeros((1, p.shape[1], 0, p.shape[3]), np.float32) for p in self._past},
        }
        tokens: list[int] = []
        logprobs: list[float] = []
        while len(tokens) < len(window) / SAMPLE_RATE_HZ * 6.5 + 8:
            outputs = dict(zip(self._outputs, self._decoder.run(None, feed), strict=True))
            logits = outputs["logits"][0, -1].astype(np.float64)
            token = int(logits.argmax())
            logprobs.append(float(logits[token] - np.logaddexp.reduce(logits)))
            if token == END_TOKEN:
                break
            tokens.append(token)
            for past in self._past:
                if ".decoder." in past.name or not feed["use_cache_branch"][0]:
                    feed[past.name] = outputs[past.name.replace("past_key_values", "present")]
            feed["use_cache_branch"] = np.array([True])
            feed["input_ids"] = np.array([[token]])
        return Reference(tuple(tokens), tuple(logprobs))


def test_it_says_what_the_models_own_graph_says(
    engine: MoonshineOrt, folder: Path, dickens: Waveform
) -> None:
    """Real speech, cut every six seconds. Activations are quantised otherwise (per row and block of 32,
    not per batch), so probabilities differ a little: by less than 0.02 in the mean logarithm. The tokens
    are the same, but for places where the model itself gave its choice hardly more than a half."""
    own = OwnGraph(folder)
    step = 6 * SAMPLE_RATE_HZ
    windows = [read(sample_recordings()[0]), *(dickens[i : i + step] for i in range(0, len(dickens), step))]
    same = 0
    for window in windows:
        expected = own.decode(np.pad(window, (800, 1_600)))  # as the engine frames it
        (hypothesis,) = engine.decode([window], PLAIN)
        (segment,) = hypothesis.segments
        said, wanted = (*segment.tokens, END_TOKEN), (*expected.tokens, END_TOKEN)
        pairs = enumerate(zip(said, wanted, strict=False))
        parting = next((i for i, (ours, theirs) in pairs if ours != theirs), None)
        if parting is not None:
            assert np.exp(expected.logprobs[parting]) < 0.6
            continue
        same += 1
        assert segment.tokens == expected.tokens
        assert segment.avg_logprob == pytest.approx(np.mean(expected.logprobs), abs=0.08)
    assert same >= 0.6 * len(windows)  # most are cut inside a word, and then there is much to guess


# -- ends


@pytest.mark.parametrize("asks", [0, 1, 3, 10])
def test_stops_where_nobody_waits_any_more(
    engine: MoonshineOrt, windows: list[Waveform], alone: list[Hypothesis], asks: int
) -> None:
    left = itertools.count(asks, -1)
    with pytest.raises(Cancelled):
        engine.decode(windows[:2], PLAIN, lambda: next(left) > 0)
    assert next(left) == -1  # it did not ask again
    assert engine.decode(windows[:2], PLAIN) == alone[:2]


def test_a_closed_engine_says_so(folder: Path) -> None:
    engine = MoonshineOrt(folder, ModelRef("m", "1"))
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        engine.decode([np.zeros(SAMPLE_RATE_HZ, np.float32)], PLAIN)


def test_no_error_of_the_runtime_is_left_to_its_callers() -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    named = {"Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented"}
    mapped = ort_errors()
    assert named <= {error.__name__ for error in mapped}
    raised = [v for v in vars(state).values() if isinstance(v, type) and issubclass(v, BaseException)]
    assert all(issubclass(error, mapped) for error in raised)
    assert MemoryError in mapped


def test_weights_are_those_that_the_runtimes_own_reader_finds(folder: Path) -> None:
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    data = (folder / DECODER).read_bytes()
    graph = InferenceSession.GetRootAsInferenceSession(bytearray(data), 0).Model().Graph()
    theirs = {t.Name().decode(): t for i in range(graph.InitializersLength()) if (t := graph.Initializers(i))}
    ours = read_ort_weights(folder / DECODER, root="/model/decoder/").constants
    raw = {name: tensor for name, tensor in theirs.items() if tensor.RawDataLength()}
    assert raw.keys() <= ours.keys()
    for name, tensor in raw.items():
        assert ours[name].shape == tuple(tensor.Dims(j) for j in range(tensor.DimsLength()))
        assert ours[name].tobytes() == tensor.RawDataAsNumpy().tobytes()


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    damaged(folder, tmp_path, name, None)
    with pytest.raises(ModelNotInstalled, match=name):
        MoonshineOrt(tmp_path, ModelRef("m", "1"))


def damaged(folder: Path, target: Path, name: str, content: bytes | None) -> Path:
    """The model's folder, one of its files with another content."""
    for other in MODEL_FILES:
        if other != name:
            (target / other).symlink_to(folder / other)
    if content is not None:
        (target / name).write_bytes(content)
    return target


def broken(content: bytes, how: str) -> bytes:
    changed = bytearray(content)
    match how:
        case "empty":
            return b""
        case "half":
            return content[: len(content) // 2]
        case "a block short":
            return content[:-4096]
        case "a byte short":
            return content[:-1]
        case "zeros":
            return bytes(len(content))
        case "noise":
            return random.Random(0).randbytes(1 << 20)
        case "root":  # the offset that everything is found by
            changed[:4] = b"\xff\xff\xff\x7f"
        case "tables":  # the end is where the names and shapes are
            for i in random.Random(3).sample(range(len(changed) - 400_000, len(changed)), 200):
                changed[i] ^= 0xFF
    return bytes(changed)


@pytest.mark.parametrize("how", ["empty", "half", "a block short", "zeros", "noise", "root", "tables"])
@pytest.mark.parametrize("name", [ENCODER, DECODER])
def test_a_damaged_model_is_an_error_of_ours(folder: Path, tmp_path: Path, name: str, how: str) -> None:
    where = damaged(folder, tmp_path, name, broken((folder / name).read_bytes(), how))
    with pytest.raises(EngineFailed):
        MoonshineOrt(where, ModelRef("m", "1")).decode([np.zeros(SAMPLE_RATE_HZ, np.float32)], PLAIN)


@pytest.mark.parametrize("how", ["empty", "half", "a byte short"])
def test_a_damaged_vocabulary_is_an_error_of_ours(folder: Path, tmp_path: Path, how: str) -> None:
    where = damaged(folder, tmp_path, TOKENIZER, broken((folder / TOKENIZER).read_bytes(), how))
    with pytest.raises(EngineFailed):
        MoonshineOrt(where, ModelRef("m", "1"))


def test_a_vocabulary_that_lacks_a_word_is_not_this_models(folder: Path, tmp_path: Path) -> None:
    content = (folder / TOKENIZER).read_bytes()
    without_first = content[1 + content[0] :]
    with pytest.raises(EngineFailed, match="tokenizer"):
        MoonshineOrt(damaged(folder, tmp_path, TOKENIZER, without_first), ModelRef("m", "1"))


@pytest.mark.parametrize("name", MODEL_FILES)
def test_the_bundled_model_is_compared_with_what_the_catalog_knows(
    folder: Path, tmp_path: Path, name: str
) -> None:
    """A flipped bit in a weight would load, and speak."""
    entry = find_entry("moonshine-tiny-en")
    assert entry
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 3] ^= 1
    where = damaged(folder, tmp_path, name, bytes(content))

    def no_device() -> DeviceChoice:
        raise AssertionError("this engine has no choice of device")

    with pytest.raises(EngineFailed, match=name):
        load_engine(entry, where, entry.revision, cores=1, device=no_device)
    (where / name).unlink()
    shutil.copy(folder / name, where / name)
    engine, runs_on = load_engine(entry, where, entry.revision, cores=1, device=no_device)
    engine.close()
    assert runs_on == RunsOn("cpu")


def words(hypotheses: Sequence[Hypothesis]) -> list[str]:
    return [word for h in hypotheses for s in h.segments for word in s.text.split()]


def test_confidences_tell_clear_speech_from_noise(engine: MoonshineOrt, dickens: Waveform) -> None:
    clear = dickens[: 8 * SAMPLE_RATE_HZ]
    noise = np.random.default_rng(0).normal(0, 0.3, len(clear)).astype(np.float32)
    drowned, heard = engine.decode([clear * 0.1 + noise, clear], PLAIN)
    assert heard.segments[0].avg_logprob > -0.3  # type: ignore[operator]
    assert words([heard])
    assert all(s.avg_logprob < -0.3 for s in drowned.segments)  # type: ignore[operator]
