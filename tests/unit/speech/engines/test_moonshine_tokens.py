from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.errors import EngineFailed
from voiceforge.infra.modelstore.wheel import find_in_wheel
from voiceforge.speech.engines.catalog import find_entry
from voiceforge.speech.engines.moonshine_tokens import END_TOKEN, START_TOKEN, MoonshineTokens

SPECIAL = (b"<unk>", b"<s>", b"</s>")


def tokens_of(*pieces: str) -> MoonshineTokens:
    return MoonshineTokens((*SPECIAL, *(piece.encode() for piece in pieces)))


def real() -> MoonshineTokens:
    entry = find_entry("moonshine-tiny-en")
    assert entry
    found = find_in_wheel(entry)
    assert found
    return MoonshineTokens.load(found.files.path / "tokenizer.bin")


REAL = real()


def test_a_vocabulary_is_read_with_short_and_long_pieces(tmp_path: Path) -> None:
    pieces = [*SPECIAL, b"x" * 127, b"y" * 128, b"z" * 300, "▁word".encode()]
    lengths = [bytes([n]) if n < 128 else bytes([n % 128 + 128, n // 128]) for n in map(len, pieces)]
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(b"".join(n + piece for n, piece in zip(lengths, pieces, strict=True)))
    tokens = MoonshineTokens.load(path)
    assert len(tokens) == 7
    assert tokens.text([3, 4, 5, 6]) == "x" * 127 + "y" * 128 + "z" * 300 + " word"
    whole = path.read_bytes()
    for cut in (1, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(EngineFailed):
            MoonshineTokens.load(path)
    with pytest.raises(EngineFailed):
        MoonshineTokens.load(tmp_path)


def test_text_is_made_of_pieces_and_leaves_out_what_is_not_said() -> None:
    tokens = tokens_of("▁Hel", "lo", "▁wor", "ld", "!")
    assert tokens.text([START_TOKEN, 3, 4, 5, 6, 7, END_TOKEN]) == "Hello world!"
    assert tokens.text([]) == ""


def test_letters_of_several_bytes_may_come_in_several_pieces() -> None:
    tokens = MoonshineTokens((*SPECIAL, "▁caf".encode(), b"\xc3", b"\xa9"))
    assert tokens.text([3, 4, 5]) == "café"
    assert tokens.text([3, 4]) == "caf\ufffd"  # cut off in the middle
    assert len(tokens.word_logprobs([3, 4, 5], [-1.0, -2.0, -3.0])) == 1


def test_a_word_is_as_sure_as_its_pieces_are_in_the_mean() -> None:
    tokens = tokens_of("▁Hel", "lo", "▁world", "!")
    assert tokens.word_logprobs([3, 4, 5, 6], [-0.2, -0.4, -1.0, -3.0]) == pytest.approx((-0.3, -2.0))


def test_pieces_may_hold_spaces_anywhere() -> None:
    tokens = tokens_of("▁", "a", "b▁", "▁c▁d", "e")
    text = [3, 4, 5, 6, 7]
    assert tokens.text(text).split() == ["ab", "c", "de"]
    assert tokens.word_logprobs(text, [-9.0, -1.0, -3.0, -5.0, -7.0]) == pytest.approx((-2.0, -5.0, -6.0))


ANY_TOKEN = st.integers(0, len(REAL) - 1)
ODD_TOKEN = st.integers(0, 300)  # single bytes, spaces of all kinds among them


@given(st.lists(ANY_TOKEN | ODD_TOKEN, max_size=30))
def test_every_word_of_any_text_has_a_probability(tokens: list[int]) -> None:
    logprobs = [-0.1 * i for i in range(len(tokens))]
    assert len(REAL.word_logprobs(tokens, logprobs)) == len(REAL.text(tokens).split())
