"""Live captions in a terminal: what was said stands, what is being said is rewritten until it stands."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import click

_ERASE = "\r\x1b[2K"


@dataclass(frozen=True, slots=True)
class Caption:
    """final: it stands. start, end: seconds from the start of the stream. stable: so many of the first words
    of what does not stand yet will not change. document: all that is known, for programs."""

    final: bool
    text: str
    start: float
    end: float
    stable: int
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Remark:
    """What is told of a stream beside its captions. text: for people; None: nothing."""

    text: str | None
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TerminalLine:
    """stable: of its text, what will not change."""

    stable: str
    rest: str

    @property
    def plain(self) -> str:
        return f"{self.stable} {self.rest}".strip()


class Captions(Protocol):
    """Where they are shown. `close` leaves the terminal clean."""

    def show(self, caption: Caption) -> None: ...

    def remark(self, remark: Remark) -> None: ...

    def close(self) -> None: ...


def captions(*, as_json: bool, times: bool) -> Captions:
    if as_json:
        return JsonLines()
    return Terminal(times=times) if sys.stderr.isatty() else Lines(times=times)


class JsonLines:
    """Every caption as a line of JSON."""

    def show(self, caption: Caption) -> None:
        click.echo(json.dumps(caption.document, ensure_ascii=False))

    def remark(self, remark: Remark) -> None:
        click.echo(json.dumps(remark.document, ensure_ascii=False))

    def close(self) -> None:
        """Nothing is left to do."""


class Lines:
    """Only what stands, a line each."""

    def __init__(self, *, times: bool) -> None:
        self._times = times

    def show(self, caption: Caption) -> None:
        if caption.final and caption.text:
            click.echo(f"{_clock(caption.start)}  {caption.text}" if self._times else caption.text)

    def remark(self, remark: Remark) -> None:
        """On standard error: it was not spoken."""
        if remark.text is not None:
            click.echo(remark.text, err=True)

    def close(self) -> None:
        """Nothing is left to do."""


class Terminal:
    """What stands goes to standard output; what is being said is one line on the terminal below it."""

    def __init__(self, *, times: bool) -> None:
        self._lines = Lines(times=times)
        self._drawn = False

    def show(self, caption: Caption) -> None:
        if caption.final:
            self.close()
            self._lines.show(caption)
            return
        line = self.line(caption)
        shown = f"{line.stable} {click.style(line.rest, dim=True)}".strip()
        click.echo(f"{_ERASE}{shown}", nl=False, err=True, color=True)
        self._drawn = True

    def remark(self, remark: Remark) -> None:
        if remark.text is not None:
            self.close()
            self._lines.remark(remark)

    def line(self, caption: Caption) -> TerminalLine:
        """As much of its end as the terminal is wide: the end is what is news."""
        width = shutil.get_terminal_size().columns - 1
        words = caption.text.split()
        rest = " ".join(words[caption.stable :])[-width:]
        room = width - len(rest) - 1 if rest else width
        stable = " ".join(words[: caption.stable])
        if len(stable) > room:
            stable = "…" + stable[len(stable) - room + 1 :] if room > 1 else ""
        return TerminalLine(stable, rest)

    def close(self) -> None:
        if self._drawn:
            click.echo(_ERASE, nl=False, err=True, color=True)
            self._drawn = False


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
