"""Captions as a terminal, a pipe and a program see them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.cli.live_captions import Caption, JsonLines, Lines, Terminal

ERASE = "\r\x1b[2K"


def caption(text: str, *, final: bool = False, stable: int = 0, start: float = 0.0) -> Caption:
    return Caption(final, text, start, start + 1.0, stable, {"text": text})


def test_only_what_stands_goes_to_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(times=False)
    lines.show(caption("ever"))
    lines.show(caption("Ever tried.", final=True))
    lines.show(caption("", final=True))
    assert capsys.readouterr() == ("Ever tried.\n", "")


@pytest.mark.parametrize(("start", "shown"), [(3.9, "00:03"), (61.0, "01:01"), (3_600.0, "1:00:00")])
def test_times(capsys: pytest.CaptureFixture[str], start: float, shown: str) -> None:
    Lines(times=True).show(caption("Ever tried.", final=True, start=start))
    assert capsys.readouterr().out == f"{shown}  Ever tried.\n"


def test_programs_get_everything(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines()
    lines.show(caption("ever"))
    lines.show(caption("Ever tried. Ungarn heißt Magyarország.", final=True))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["text"] for document in told] == ["ever", "Ever tried. Ungarn heißt Magyarország."]


def test_what_is_being_said_is_rewritten_until_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(times=False)
    terminal.show(caption("ever tried", stable=1))
    terminal.show(caption("Ever tried.", final=True))
    terminal.close()
    out, err = capsys.readouterr()
    assert out == "Ever tried.\n"
    assert err.startswith(f"{ERASE}ever ")
    assert err.endswith(ERASE)


@given(
    words=st.lists(st.text("abcdefgh", min_size=1, max_size=30), max_size=60),
    stable=st.integers(0, 60),
)
def test_it_never_takes_more_than_a_line(words: list[str], stable: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "40")
        shown = Terminal(times=False).line(caption(" ".join(words), stable=min(stable, len(words))))
    assert len(shown.plain) < 40
    if words:
        assert shown.plain.endswith(words[-1][-39:])
