"""Writes a CTranslate2 Whisper with the true dimensions of a size and made-up weights.

Why: where no trained checkpoint can be had, what a server adds to the engine can still be measured.
Every matrix has its real size, so mel front end, encoder, cross-attention, beam search and detokenising
cost what they cost; only the words mean nothing.

Random weights alone would babble to the token limit and set off the temperature fall-back, so that two
programs would do different amounts of work. Here the decoder walks a fixed chain instead,

    <|startoftranscript|> … → <|0.00|> → N words → <|T|> → <|endoftext|>

each window the same N tokens with a probability near 1: the output row of a token points along the input
embedding of the token before it, and the layers add next to nothing in between. Every word of the chain
has an understudy: same embedding, a slightly lower logit. The other beams then differ in understudies and
end together with the first, as variants do with trained weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Size:
    """Dimensions as published (Radford et al. 2022, table 1); English-only checkpoints."""

    width: int
    heads: int
    layers: int
    mel_bins: int = 80


SIZES = {
    "tiny.en": Size(384, 6, 4),
    "base.en": Size(512, 8, 6),
    "small.en": Size(768, 12, 12),
    "medium.en": Size(1024, 16, 24),
}
_TEXT_TOKENS = 50_256  # GPT-2's vocabulary without <|endoftext|>
_AUDIO_POSITIONS = 1500
_TEXT_POSITIONS = 448
_TIMESTAMPS = 1501
_LANGUAGE_SLOTS = 99
_MOST_TOKENS = 200  # so that a prompt of earlier text still fits

_SYLLABLE = ("bdfghklmnprstvwz", "aeiou", "lmnrst")

_LAYER_GAIN = 0.02
_CHAIN_LOGIT = 24.0  # the others' lie around 0 ± 1
_UNDERSTUDY_LOGIT = 20.0


def build(
    folder: Path, *, size: str = "tiny.en", tokens: int = 100, end_s: float = 9.0, seed: int = 0
) -> Path:
    """Write the model's files into `folder`; the same arguments give the same files.

    Args:
        tokens: text tokens of every window, 1 to 200.
        end_s: where the segment of every window ends, a multiple of 0.02.

    Returns:
        `folder`.
    """
    from ctranslate2.specs import WhisperSpec

    if not 1 <= tokens <= _MOST_TOKENS:
        raise ValueError(f"tokens must lie between 1 and {_MOST_TOKENS}")
    dims = SIZES[size]
    words = [f"Ġ{word}" for word in _made_up_words(tokens, seed)]
    text = _text_tokens(words)
    special = _special_tokens()
    ids = {token: index for index, token in enumerate((*text, *special))}
    weights = _Weights(dims, seed)

    spec = WhisperSpec(dims.layers, dims.heads, dims.layers, dims.heads)
    weights.fill_encoder(spec.encoder)
    weights.fill_decoder(spec.decoder)
    chain = [ids[token] for token in (_timestamp(0.0), *words, _timestamp(end_s), "<|endoftext|>")]
    embeddings, projection = weights.chained(
        len(ids),
        [ids["<|startoftranscript|>"], *chain],
        shortcut=(ids["<|notimestamps|>"], chain[1]),
        understudies={word: len(text) - 1 - index for index, word in enumerate(chain[1:-2])},
    )
    spec.decoder.embeddings.weight = embeddings
    spec.decoder.projection.weight = projection

    spec.register_vocabulary([*text, *special])
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [ids["Ġ"], ids["<|endoftext|>"]]
    spec.config.lang_ids = []
    upper = range(dims.layers // 2, dims.layers)
    spec.config.alignment_heads = [(layer, head) for layer in upper for head in range(dims.heads)]
    spec.validate()
    spec.optimize(quantization="float16")

    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    _write_tokenizer(folder / "tokenizer.json", text, special)
    features = {"feature_size": dims.mel_bins, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
    (folder / "preprocessor_config.json").write_text(json.dumps(features | {"chunk_length": 30}))
    return folder


def _made_up_words(count: int, seed: int) -> list[str]:
    """Different ones. Numbered words would compress so well that the text counts as a loop."""
    rng = np.random.default_rng(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        syllables = rng.integers(1, 4)
        made["".join(rng.choice(list(letters)) for _ in range(syllables) for letters in _SYLLABLE)] = None
    return list(made)


def _text_tokens(words: Sequence[str]) -> list[str]:
    """The 256 bytes as byte-level BPE writes them (GPT-2), our words, then fillers."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    substitutes = iter(range(256, 512))
    alphabet = [chr(byte if byte in printable else next(substitutes)) for byte in range(256)]
    named = [*alphabet, *words]
    return named + [f"Ġfill{index}" for index in range(_TEXT_TOKENS - len(named))]


def _special_tokens() -> list[str]:
    """In Whisper's order and number; which languages there are does not matter to an English model."""
    return [
        *("<|endoftext|>", "<|startoftranscript|>", "<|en|>"),
        *(f"<|l{index}|>" for index in range(1, _LANGUAGE_SLOTS)),
        *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"),
        "<|notimestamps|>",
        *(_timestamp(index * 0.02) for index in range(_TIMESTAMPS)),
    ]


def _timestamp(seconds: float) -> str:
    return f"<|{seconds:.2f}|>"


def _write_tokenizer(path: Path, text: Sequence[str], special: Sequence[str]) -> None:
    """No merges: text encodes to bytes, and decoding is exact."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: index for index, token in enumerate(text)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(path))


class _Weights:
    """Seeded random weights in CTranslate2's layout; those of a linear layer have shape (n_out, n_in)."""

    def __init__(self, dims: Size, seed: int) -> None:
        self._dims = dims
        self._rng = np.random.default_rng(seed)

    def chained(
        self,
        vocabulary: int,
        chain: Sequence[int],
        *,
        shortcut: tuple[int, int],
        understudies: dict[int, int],
    ) -> tuple[Floats, Floats]:
        """Input embeddings and output rows, shape (vocabulary, width), that make the decoder walk `chain`.

        Args:
            shortcut: a token, and the place in the chain that follows it too (for text without times).
            understudies: for words of the chain, the token that stands in for it.
        """
        width = self._dims.width
        embeddings = self._normal(vocabulary, width, std=1.0)
        embeddings -= embeddings.mean(axis=1, keepdims=True)
        embeddings /= embeddings.std(axis=1, keepdims=True)
        # After layer norm, a row of length width**0.5 meets itself scaled by 1 / width**0.5.
        towards = embeddings * np.float32(1.0 / width)
        projection = self._normal(vocabulary, width, std=1.0 / width**0.5)
        for before, token in (*pairwise(chain), shortcut):
            drawn = _CHAIN_LOGIT * towards[before]
            # A place in the chain that can be reached in two ways answers to both.
            projection[token] = drawn if (before, token) != shortcut else projection[token] + drawn
        for word, understudy in understudies.items():
            embeddings[understudy] = embeddings[word]
            projection[understudy] = projection[word] * np.float32(_UNDERSTUDY_LOGIT / _CHAIN_LOGIT)
        return embeddings, projection

    def fill_encoder(self, encoder: Any) -> None:
        width, bins = self._dims.width, self._dims.mel_bins
        for conv, channels in ((encoder.conv1, bins), (encoder.conv2, width)):
            conv.weight = self._normal(width, channels, 3, std=0.05)
            conv.bias = np.zeros(width, np.float32)
        encoder.position_encodings.encodings = self._normal(_AUDIO_POSITIONS, width, std=0.1)
        self._fill_layers(encoder, gain=1.0)

    def fill_decoder(self, decoder: Any) -> None:
        width = self._dims.width
        decoder.scale_embeddings = False
        decoder.position_encodings.encodings = self._normal(_TEXT_POSITIONS, width, std=0.05)
        self._fill_layers(decoder, gain=_LAYER_GAIN)
        for layer in decoder.layer:
            query, key_value, out = layer.attention.linear
            self._linear(query, width, width)
            self._linear(key_value, 2 * width, width)
            self._linear(out, width, width, _LAYER_GAIN)
            self._norm(layer.attention.layer_norm)

    def _fill_layers(self, stack: Any, gain: float) -> None:
        width = self._dims.width
        self._norm(stack.layer_norm)
        for layer in stack.layer:
            self._linear(layer.self_attention.linear[0], 3 * width, width)
            self._linear(layer.self_attention.linear[1], width, width, gain)
            self._norm(layer.self_attention.layer_norm)
            self._linear(layer.ffn.linear_0, 4 * width, width)
            self._linear(layer.ffn.linear_1, width, 4 * width, gain)
            self._norm(layer.ffn.layer_norm)

    def _linear(self, linear: Any, n_out: int, n_in: int, gain: float = 1.0) -> None:
        linear.weight = self._normal(n_out, n_in, std=gain / n_in**0.5)
        linear.bias = np.zeros(n_out, np.float32)

    def _norm(self, norm: Any) -> None:
        norm.gamma = np.ones(self._dims.width, np.float32)
        norm.beta = np.zeros(self._dims.width, np.float32)

    def _normal(self, *shape: int, std: float) -> Floats:
        return self._rng.standard_normal(shape, dtype=np.float32) * np.float32(std)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="where to write the model's files")
    made.add_argument("--size", choices=sorted(SIZES), default="tiny.en")
    made.add_argument("--tokens", type=int, default=100, help="text tokens per window (default 100)")
    args = made.parse_args()
    folder = build(args.folder, size=args.size, tokens=args.tokens)
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    print(json.dumps({"size": args.size, "tokens": args.tokens, "bytes": size_bytes}))


if __name__ == "__main__":
    main()
