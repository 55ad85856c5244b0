"""Errors as one line on stderr, and as the exit code that belongs to them."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import click

from voiceforge.errors import (
    ConfigurationError,
    InvalidRequest,
    ModelNotFound,
    ModelNotInstalled,
    VoiceForgeError,
)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_MOST_CHOICES = 12
_CALLERS_MISTAKE = (ConfigurationError, InvalidRequest, ModelNotFound, ModelNotInstalled)
_DEBUG_KEY = "voiceforge.debug"


def turn_on_debug(context: click.Context) -> None:
    context.meta[_DEBUG_KEY] = True


def debug_is_on(context: click.Context) -> bool:
    return bool(context.meta.get(_DEBUG_KEY))


def complain(message: str) -> None:
    click.echo(f"voiceforge: {one_line(message)}", err=True)


def exit_code(error: BaseException) -> int:
    """2 for what the user can mend by asking differently, 1 for everything else."""
    return EXIT_USAGE if isinstance(error, _CALLERS_MISTAKE) else EXIT_FAILED


def report(error: Exception, context: click.Context) -> int:
    """Say what went wrong; returns the exit code."""
    print_traceback(error, context)
    for line in lines_about(error):
        complain(line)
    return exit_code(error)


def print_traceback(error: Exception, context: click.Context) -> None:
    """Only with --debug."""
    if debug_is_on(context):
        import traceback  # 10 ms that `--help` need not wait for

        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)


def lines_about(error: Exception) -> Iterator[str]:
    """One line, but one per problem where the settings cannot work."""
    if isinstance(error, ConfigurationError):
        yield from error.problems
    else:
        yield line_about(error)


def line_about(error: Exception) -> str:
    if not isinstance(error, VoiceForgeError):
        return f"internal error ({describe(error)}); run with --debug for the traceback"
    line = error.message
    missing = [choice for choice in error.choices if choice not in line]
    if missing:
        rest = len(error.choices) - _MOST_CHOICES
        shown = ", ".join(error.choices[:_MOST_CHOICES])
        line += f"; choose from {shown}" + (f" and {rest} more" if rest > 0 else "")
    return line


def describe(error: Exception) -> str:
    """An exception that is none of ours, in a few words."""
    text = one_line(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_broken_pipe(error: BaseException) -> bool:
    """Whoever read our output has gone, as `head` does; click ends quietly then."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def one_line(text: str) -> str:
    return " ".join(text.split())
