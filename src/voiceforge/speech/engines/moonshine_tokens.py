"""Moonshine's vocabulary: token ids in, text and per-word confidence out."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

from voiceforge.errors import EngineFailed

START_TOKEN, END_TOKEN = 1, 2
_FIRST_TEXT_TOKEN = 3
_SPACE = "▁".encode()


class MoonshineTokens:
    """Byte-level pieces by id; a piece that starts with "▁" starts a word."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = tuple(piece.replace(_SPACE, b" ") for piece in pieces)

    @classmethod
    def load(cls, path: Path) -> MoonshineTokens:
        """Read `tokenizer.bin`: per piece a length, then its bytes.

        A length below 128 takes one byte, a longer one two: low part + 128, then the multiple of
        128 (moonshine-voice's own format).

        Raises:
            EngineFailed: the file is cut off, or cannot be read.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EngineFailed("the tokenizer file cannot be read") from error
        pieces: list[bytes] = []
        at = 0
        while at < len(data):
            length = data[at]
            at += 1
            if length >= 128:
                if at >= len(data):
                    raise EngineFailed("the tokenizer file is cut off")
                length += data[at] * 128 - 128
                at += 1
            pieces.append(data[at : at + length])
            at += length
        if at != len(data) or len(pieces) <= _FIRST_TEXT_TOKEN:
            raise EngineFailed("the tokenizer file is cut off")
        return cls(pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def text(self, tokens: Sequence[int]) -> str:
        return (
            b"".join(self._pieces[t] for t in tokens if t >= _FIRST_TEXT_TOKEN)
            .decode("utf-8", "replace")
            .strip()
        )

    def word_logprobs(self, tokens: Sequence[int], logprobs: Sequence[float]) -> tuple[float, ...]:
        """Mean token log probability of each word of `text(tokens).split()`, in order. A token that has
        part in several words counts in each."""
        words: list[list[float]] = []
        in_word = False
        waiting: list[float] = []  # of tokens whose last character is not complete yet
        for characters, logprob in self._decoded(tokens, logprobs):
            waiting.append(logprob)
            counted: list[float] | None = None
            for character in characters:
                if character.isspace():
                    in_word = False
                    continue
                if not in_word:
                    words.append([])
                    in_word = True
                if words[-1] is not counted:
                    counted = words[-1]
                    counted += waiting
            if characters:
                waiting = []
        return tuple(sum(word) / len(word) for word in words)

    def _decoded(self, tokens: Sequence[int], logprobs: Sequence[float]) -> Iterator[tuple[str, float]]:
        """Each token of the text with the characters that it completes."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        spoken = [(t, lp) for t, lp in zip(tokens, logprobs, strict=True) if t >= _FIRST_TEXT_TOKEN]
        for i, (token, logprob) in enumerate(spoken, 1):
            yield decoder.decode(self._pieces[token], final=i == len(spoken)), logprob
