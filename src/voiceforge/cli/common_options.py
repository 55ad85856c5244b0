"""Options and parameter types that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from voiceforge.cli.complaints import turn_on_debug
from voiceforge.errors import VoiceForgeError
from voiceforge.speech.options import RAW_ENCODINGS, RawFormat

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

KEY_VARIABLE = "VOICEFORGE_API_KEY"
DEFAULT_SERVER = "http://127.0.0.1:8000"


def _on_debug(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        turn_on_debug(ctx)


def _can_debug(command: Decorated) -> Decorated:
    return click.option(
        "--debug", is_flag=True, expose_value=False, callback=_on_debug, help="Print tracebacks."
    )(command)


def reads_settings(command: Decorated) -> Decorated:
    """Adds --config, passed as `config`, and --debug."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Settings file; otherwise VOICEFORGE_CONFIG, then ./voiceforge.toml.",
    )(_can_debug(command))


def asks_a_server(command: Decorated) -> Decorated:
    """Adds --server, passed as `server`, and --debug."""
    return click.option(
        "--server",
        envvar="VOICEFORGE_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        metavar="URL",
        help="The server to ask.",
    )(_can_debug(command))


def can_be_quiet(command: Decorated) -> Decorated:
    return click.option("-q", "--quiet", is_flag=True, help="No progress and no warnings, only errors.")(
        command
    )


def prints_json(command: Decorated) -> Decorated:
    """Adds --json, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


class RawFormatType(click.ParamType[RawFormat]):
    """`encoding[:rate[:channels]]`."""

    name = "ENCODING[:RATE[:CHANNELS]]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RawFormat:
        if isinstance(value, RawFormat):
            return value
        encoding, *numbers = str(value).split(":")
        if len(numbers) > 2 or not all(number.isascii() and number.isdigit() for number in numbers):
            self.fail(f"{value!r} does not look like s16le:16000:1", param, ctx)
        if encoding not in RAW_ENCODINGS:
            self.fail(f"unknown encoding {encoding!r}; choose from {', '.join(RAW_ENCODINGS)}", param, ctx)
        try:
            return RawFormat(encoding, *map(int, numbers))
        except VoiceForgeError as error:
            self.fail(error.message, param, ctx)
