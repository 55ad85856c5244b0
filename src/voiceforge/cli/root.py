"""The command `voiceforge`: finds its commands when they are used, and ends every failure in one line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click

from voiceforge.cli.complaints import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    complain,
    is_broken_pipe,
    report,
    turn_on_debug,
)
from voiceforge.cli.ports import Ports

# In the order of the help page. Each module has a `command`.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "transcribe": "voiceforge.cli.transcribe",
        "listen": "voiceforge.cli.listen",
        "init": "voiceforge.cli.init",
        "serve": "voiceforge.cli.serve",
        "wyoming": "voiceforge.cli.wyoming",
        "worker": "voiceforge.cli.worker",
        "jobs": "voiceforge.cli.jobs",
        "stream": "voiceforge.cli.stream",
        "keys": "voiceforge.cli.keys",
        "users": "voiceforge.cli.users",
        "models": "voiceforge.cli.models",
        "doctor": "voiceforge.cli.doctor",
        "bench": "voiceforge.cli.bench",
        "config": "voiceforge.cli.config",
        "db": "voiceforge.cli.db",
        "audit": "voiceforge.cli.audit",
        "privacy": "voiceforge.cli.privacy",
        "backup": "voiceforge.cli.backup",
        "restore": "voiceforge.cli.restore",
        "demo": "voiceforge.cli.demo",
    }
)

_EPILOG = """\b
Examples:
  voiceforge demo
  voiceforge transcribe interview.m4a
  voiceforge transcribe talks/ --format srt --output-dir subtitles/
  voiceforge serve

\b
Tab completion for bash (zsh and fish likewise), in ~/.bashrc:
  eval "$(_VOICEFORGE_COMPLETE=bash_source voiceforge)"
"""


class RootGroup(click.Group):
    """Imports a command's module when the command is named, or its help line is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = importlib.import_module(module).command
        assert isinstance(command, click.Command)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Wrong usage in one line too, and 130 for Ctrl-C, where click prints several and says 1."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = EXIT_USAGE
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx is not None else "voiceforge"
            complain(f"{error.format_message()} (see `{where} --help`)")
            code = EXIT_USAGE
        except click.ClickException as error:
            complain(error.format_message())
            code = EXIT_FAILED
        except click.Abort:
            complain("interrupted")
            code = EXIT_INTERRUPTED
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if is_broken_pipe(error):
                raise
            ctx.exit(report(error, ctx))
        return result


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"voiceforge {ctx.ensure_object(Ports).version()}")
        ctx.exit()


@click.group(
    cls=RootGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@click.option("--debug", is_flag=True, help="Print the traceback of what goes wrong.")
@click.pass_context
def root(ctx: click.Context, debug: bool) -> None:
    """Speech to text on your own machine: recordings, folders and URLs, or a server for your apps."""
    if debug:
        turn_on_debug(ctx)
