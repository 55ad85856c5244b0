"""Builds a CTranslate2 Whisper small enough for a unit test, that says a fixed text.

Real file layout, real token order, real timestamp rules; made-up weights. The real adapter (and
faster-whisper beneath it) runs on it unchanged, in milliseconds. What it "hears" does not depend
on the audio, only on the task:

    prompt → <|0.00|> → text        → <|end|> → <|endoftext|>     task transcribe
    prompt → <|0.02|> → translation → <|end|> → <|endoftext|>     task translate

It works because the output row of each token points along the input embedding of the token
before it in that chain, and the layers add next to nothing in between.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH = 64
HEADS = 2
MEL_BINS = 80
AUDIO_POSITIONS = 1500  # 30 s at 50 encoder positions a second; fixed in Whisper
TEXT_POSITIONS = 448
TIMESTAMPS = 1501  # <|0.00|> … <|30.00|>

NEXT_LOGIT = 24.0
"""Logit of the token whose turn it is; the others' lie around 0 ± 3, so its probability is about 1."""

LAYER_GAIN = 0.02
"""What a layer adds to the decoder's residual stream; small, so that the chain survives it."""

# Whisper's own codes in its own order, without `yue`, which only the large-v3 family has.
_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr "
    "bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn "
    "yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su"
)
LANGUAGE_CODES = tuple(_CODES.split())

Floats = NDArray[np.float32]


def build_tiny_whisper(
    folder: Path,
    *,
    multilingual: bool,
    text: Sequence[str] = ("forty", "two", "ships", "sail"),
    translation: Sequence[str] = ("translated", "words"),
    end_s: float = 2.0,
    language: str = "de",
    unsure: bool = False,
    no_speech: bool = False,
) -> Path:
    """Write model.bin, config.json, vocabulary.json, tokenizer.json and preprocessor_config.json.

    Args:
        folder: made if missing.
        text, translation: what it says for each task: one token a word, no word twice.
        end_s: where the spoken segment ends, a multiple of 0.02; it may lie beyond a window's end.
        language: what language detection answers (multilingual only).
        unsure: every token is a guess, so that the temperature fall-back runs to its end.
        no_speech: it reports a no_speech_prob of about 1; with `unsure`, as on silence.

    Returns:
        `folder`.
    """
    from ctranslate2.specs import WhisperSpec

    words = [f"Ġ{word}" for word in (*text, *translation)]
    plain = [*_byte_alphabet(), *words]
    if multilingual:
        plain.append("")  # by an empty token CTranslate2 knows a multilingual Whisper
    special = _special_tokens()
    vocabulary = [*plain, *special]
    ids = {token: index for index, token in enumerate(vocabulary)}
    draw = _Weights(seed=0)

    spec = WhisperSpec(1, HEADS, 1, HEADS)
    draw.fill_encoder(spec.encoder)
    draw.fill_decoder(spec.decoder)
    embeddings = draw.unit_rows(len(vocabulary))
    projection = draw.normal(len(vocabulary), WIDTH, std=0.1 / WIDTH**0.5)
    towards = embeddings * np.float32(NEXT_LOGIT / WIDTH**0.5)
    if no_speech:  # outdoes what the chain has at the same place
        projection[ids["<|nospeech|>"]] = 1.5 * towards[ids["<|startoftranscript|>"]]
    if not unsure:
        for token, before in _chain(text, translation, end_s, multilingual, language).items():
            projection[ids[token]] = sum(towards[ids[name]] for name in before)
    spec.decoder.embeddings.weight = embeddings
    spec.decoder.projection.weight = projection

    spec.register_vocabulary(vocabulary)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [ids["Ġ"], ids["<|endoftext|>"]]
    spec.config.lang_ids = [ids[f"<|{code}|>"] for code in LANGUAGE_CODES]
    spec.config.alignment_heads = [(0, head) for head in range(HEADS)]
    spec.validate()
    spec.optimize(quantization=None)

    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    _write_tokenizer(folder / "tokenizer.json", plain, special)
    features = {"feature_size": MEL_BINS, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
    (folder / "preprocessor_config.json").write_text(json.dumps(features | {"chunk_length": 30}))
    return folder


def _byte_alphabet() -> list[str]:
    """The 256 printable characters that byte-level BPE writes for bytes, in byte order (GPT-2)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    substitutes = iter(range(256, 512))
    return [chr(byte if byte in printable else next(substitutes)) for byte in range(256)]


def _special_tokens() -> list[str]:
    return [
        *("<|endoftext|>", "<|startoftranscript|>"),
        *(f"<|{code}|>" for code in LANGUAGE_CODES),
        *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"),
        "<|notimestamps|>",
        *(_timestamp(index * 0.02) for index in range(TIMESTAMPS)),
    ]


def _timestamp(seconds: float) -> str:
    return f"<|{seconds:.2f}|>"


def _chain(
    text: Sequence[str], translation: Sequence[str], end_s: float, multilingual: bool, language: str
) -> dict[str, list[str]]:
    """For each token the chain contains: the tokens it follows."""
    after: dict[str, list[str]] = {}
    spoken = [_timestamp(0.0), *(f"Ġ{word}" for word in text), _timestamp(end_s), "<|endoftext|>"]
    start = "<|transcribe|>" if multilingual else "<|startoftranscript|>"
    for before, token in pairwise([start, *spoken]):
        after.setdefault(token, []).append(before)
    after[spoken[1]].append("<|notimestamps|>")
    if multilingual:
        translated = [_timestamp(0.02), *(f"Ġ{word}" for word in translation), _timestamp(end_s)]
        for before, token in pairwise(["<|translate|>", *translated]):
            after.setdefault(token, []).append(before)
        after[f"<|{language}|>"] = ["<|startoftranscript|>"]  # what language detection reads
    return after


def _write_tokenizer(path: Path, plain: Sequence[str], special: Sequence[str]) -> None:
    """Without merges: text encodes to single bytes, and decoding is exact."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: index for index, token in enumerate(plain)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(path))


class _Weights:
    """Seeded random weights in CTranslate2's layout; linear weights have shape (n_out, n_in)."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def normal(self, *shape: int, std: float) -> Floats:
        return self._rng.standard_normal(shape, dtype=np.float32) * np.float32(std)

    def unit_rows(self, count: int) -> Floats:
        """shape (count, WIDTH): mean 0 and length 1, so that layer norm leaves the direction alone."""
        rows = self.normal(count, WIDTH, std=1.0)
        rows -= rows.mean(axis=1, keepdims=True)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def fill_encoder(self, encoder: Any) -> None:
        for conv, channels in ((encoder.conv1, MEL_BINS), (encoder.conv2, WIDTH)):
            conv.weight, conv.bias = self.normal(WIDTH, channels, 3, std=0.05), np.zeros(WIDTH, np.float32)
        encoder.position_encodings.encodings = self.normal(AUDIO_POSITIONS, WIDTH, std=0.1)
        self._fill_stack(encoder)

    def fill_decoder(self, decoder: Any) -> None:
        decoder.scale_embeddings = False
        decoder.position_encodings.encodings = self.normal(TEXT_POSITIONS, WIDTH, std=0.05 / WIDTH**0.5)
        self._fill_stack(decoder)
        for layer in decoder.layer:
            self._linear(layer.attention.linear[0], WIDTH, WIDTH)
            self._linear(layer.attention.linear[1], 2 * WIDTH, WIDTH)
            self._linear(layer.attention.linear[2], WIDTH, WIDTH, LAYER_GAIN)
            self._norm(layer.attention.layer_norm)

    def _fill_stack(self, stack: Any) -> None:
        self._norm(stack.layer_norm)
        for layer in stack.layer:
            self._linear(layer.self_attention.linear[0], 3 * WIDTH, WIDTH)
            self._linear(layer.self_attention.linear[1], WIDTH, WIDTH, LAYER_GAIN)
            self._norm(layer.self_attention.layer_norm)
            self._linear(layer.ffn.linear_0, 4 * WIDTH, WIDTH)
            self._linear(layer.ffn.linear_1, WIDTH, 4 * WIDTH, LAYER_GAIN)
            self._norm(layer.ffn.layer_norm)

    def _linear(self, linear: Any, n_out: int, n_in: int, gain: float = 1.0) -> None:
        linear.weight = self.normal(n_out, n_in, std=gain / n_in**0.5)
        linear.bias = np.zeros(n_out, np.float32)

    def _norm(self, norm: Any) -> None:
        norm.gamma, norm.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
