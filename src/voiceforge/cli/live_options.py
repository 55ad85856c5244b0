"""What `listen` and `stream` have in common: options on the command line, and showing what comes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import click

from voiceforge.cli.live_captions import Caption, Remark, captions

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def says_how(command: Decorated) -> Decorated:
    """Adds --model, --language, --prompt, --keyterm, --endpointing, --interim/--no-interim, --times and
    --json, passed as `model`, `language`, `prompt`, `keyterms`, `endpointing_ms`, `interim`, `times` and
    `as_json`."""
    for option in reversed(
        (
            click.option("--model", metavar="ID", help="Model; `voiceforge models list` shows them."),
            click.option(
                "--language", metavar="CODE", help="Spoken language, such as en; otherwise detected."
            ),
            click.option("--prompt", metavar="TEXT", help="Text that sets the context and spelling."),
            click.option(
                "--keyterm", "keyterms", multiple=True, metavar="TERM", help="A term to expect; repeatable."
            ),
            click.option(
                "--endpointing",
                "endpointing_ms",
                type=click.IntRange(10, 10_000),
                default=300,
                show_default=True,
                metavar="MS",
                help="The pause that ends an utterance.",
            ),
            click.option(
                "--interim/--no-interim", default=True, help="Show what is being said before it is final."
            ),
            click.option("--times", is_flag=True, help="When it was said, in front of every line."),
            click.option("--json", "as_json", is_flag=True, help="Every event as a line of JSON."),
        )
    ):
        command = option(command)
    return command


polishes = click.option(
    "--polish",
    is_flag=True,
    help="Have the server's best model hear it again, and the server keep it as a transcription.",
)


async def show_all(told: AsyncGenerator[Caption | Remark, None], *, as_json: bool, times: bool) -> None:
    shown = captions(as_json=as_json, times=times)
    try:
        async with contextlib.aclosing(told):
            async for one in told:
                if isinstance(one, Remark):
                    shown.remark(one)
                else:
                    shown.show(one)
    finally:
        shown.close()
