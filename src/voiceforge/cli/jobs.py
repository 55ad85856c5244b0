"""`voiceforge jobs`: transcriptions that a server works on in its own time."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from voiceforge.cli.common_options import KEY_VARIABLE, asks_a_server, can_be_quiet, prints_json
from voiceforge.cli.complaints import EXIT_FAILED, complain, exit_code, print_traceback, report
from voiceforge.cli.inputs import Recording, Unusable, find_recordings
from voiceforge.cli.tables import plain_lines, print_table
from voiceforge.cli.words import duration_text
from voiceforge.errors import InvalidRequest, VoiceForgeError

if TYPE_CHECKING:
    from voiceforge.cli.progress import Display
    from voiceforge.cli.server_client import ServerClient

_STATUSES = ("queued", "running", "completed", "failed", "cancelled")
_EPILOG = """\b
Examples:
  voiceforge jobs submit talk.mp3 --words
  voiceforge jobs list --status running
  voiceforge jobs watch tr_019f…
  voiceforge jobs show tr_019f… --format srt > talk.srt

\b
The server is --server, otherwise VOICEFORGE_SERVER, otherwise http://127.0.0.1:8000.
Where it wants a key, put that into VOICEFORGE_API_KEY.
"""


@click.group(epilog=_EPILOG)
def command() -> None:
    """Submit, list, show, watch, cancel and retry jobs of a server."""


@command.command()
@click.argument("inputs", nargs=-1, required=True, metavar="FILE|FOLDER|URL...")
@click.option("--model", metavar="ID", help="Model of the server.")
@click.option("--language", metavar="CODE", help="Spoken language, such as en; otherwise detected.")
@click.option("--task", type=click.Choice(("transcribe", "translate")), help="translate: into English.")
@click.option("--words", is_flag=True, help="Times for every word.")
@click.option("--channels", type=click.Choice(("mix", "split")), help="split: each channel by itself.")
@click.option("--prompt", metavar="TEXT", help="Text that sets the context and spelling.")
@click.option(
    "--keyterm", "keyterms", multiple=True, metavar="TERM", help="A term to expect; may be repeated."
)
@click.option("--priority", type=click.Choice(("low", "normal", "high")), help="Which come first.")
@click.option("--metadata", metavar="JSON", help="An object of yours that comes back with the job.")
@click.option("--callback-url", metavar="URL", help="Is told of the end of the job.")
@click.option(
    "--idempotency-key", metavar="KEY", help="The same key with the same input makes one job, however often."
)
@prints_json
@asks_a_server
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    keyterms: tuple[str, ...],
    idempotency_key: str | None,
    metadata: str | None,
    as_json: bool,
    server: str,
    **options: Any,
) -> None:
    """Hand recordings to the server; prints the id of each job."""
    fields = {name: value for name, value in options.items() if value}
    if keyterms:
        fields["keyterm"] = list(keyterms)
    if metadata is not None:
        fields["metadata"] = _object(metadata)
    found = list(find_recordings(inputs))
    if idempotency_key is not None and len(found) > 1:
        raise click.UsageError("one --idempotency-key belongs to one input")

    async def one(client: ServerClient, item: Recording | Unusable) -> None:
        if isinstance(item, Unusable):
            raise InvalidRequest(f"{item.label}: {item.reason}")
        if item.place is None:
            raise InvalidRequest("standard input is no job; put it into a file first")
        job = await client.submit(item.place, fields, key=idempotency_key)
        click.echo(json.dumps(job, ensure_ascii=False) if as_json else job["id"])

    _for_each(ctx, server, found, one)


@command.command("list")
@click.option("--status", type=click.Choice(_STATUSES), help="Only these.")
@click.option("--model", metavar="ID", help="Only those by this model.")
@click.option("--batch", metavar="ID", help="Only those of this batch.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="At most so many.")
@click.option("--cursor", metavar="TEXT", help="The next page, from next_cursor with --json.")
@prints_json
@asks_a_server
@click.pass_context
def list_(
    ctx: click.Context,
    status: str | None,
    model: str | None,
    batch: str | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
    server: str,
) -> None:
    """The newest jobs first."""

    async def ask(client: ServerClient) -> None:
        page = await client.list(status=status, model=model, batch_id=batch, limit=limit, cursor=cursor)
        if as_json:
            click.echo(json.dumps(page, indent=2, ensure_ascii=False))
            return
        rows = [
            (job["id"], job["status"], f"{job['percent']:.0f} %", job["created_at"], job["filename"] or "–")
            for job in page["data"]
        ]
        print_table(("id", "status", "done", "created", "file"), rows, right=frozenset({2}))

    _ask(server, ask)


@command.command()
@click.argument("job_id", metavar="ID")
@click.option("--format", "fmt", metavar="NAME", help="The result: txt, json, verbose_json, srt, vtt or tsv.")
@prints_json
@asks_a_server
@click.pass_context
def show(ctx: click.Context, job_id: str, fmt: str | None, as_json: bool, server: str) -> None:
    """How far a job is; with --format its result."""

    async def ask(client: ServerClient) -> None:
        if fmt is not None:
            body = (await client.result(job_id, fmt)).body
            click.echo(body, nl=not body.endswith("\n"))
            return
        job = await client.show(job_id)
        if as_json:
            click.echo(json.dumps(job, indent=2, ensure_ascii=False))
            return
        for line in plain_lines(_rows_about(job)):
            click.echo(line)

    _ask(server, ask)


def _rows_about(job: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("id", job["id"]), ("status", job["status"]), ("done", f"{job['percent']:.1f} %")]
    if job["seconds_left"]:
        rows.append(("left", duration_text(job["seconds_left"])))
    if job["queue_position"] is not None:
        rows.append(("before it", str(job["queue_position"])))
    rows += [("model", job["model"]["id"]), ("priority", job["priority"]), ("attempts", str(job["attempts"]))]
    for name, label in (("filename", "file"), ("batch_id", "batch"), ("created_at", "created")):
        if job[name]:
            rows.append((label, job[name]))
    rows += [(name.partition("_")[0], job[name]) for name in ("started_at", "finished_at") if job[name]]
    if job["metadata"]:
        rows.append(("metadata", json.dumps(job["metadata"], ensure_ascii=False)))
    if job["error"]:
        rows.append(("error", job["error"]["message"]))
    if "text" in job:
        rows.append(("text", job["text"]))
    return rows


@command.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@can_be_quiet
@asks_a_server
@click.pass_context
def watch(ctx: click.Context, job_ids: tuple[str, ...], quiet: bool, server: str) -> None:
    """Wait for the end of jobs, one after the other, with a progress bar; prints how each ended.

    The exit code is 1 where one was not completed.
    """
    from voiceforge.cli.progress import display

    with display(quiet=quiet) as screen:

        async def one(client: ServerClient, job_id: str) -> None:
            job = await watched(client, job_id, job_id, screen)
            with screen.aside():
                click.echo(f"{job_id} {job['status']}")
            if job["status"] != "completed":
                raise VoiceForgeError(f"{job_id}: {why_not(job)}")

        _for_each(ctx, server, job_ids, one)


async def watched(client: ServerClient, job_id: str, label: str, screen: Display) -> dict[str, Any]:
    """The job once it is over; a bar stands for it meanwhile."""
    bar = screen.bar(label, "audio")
    try:
        async for event in client.watch(job_id):
            if event.type == "progress" and (duration := event.data["duration"]):
                bar.update(event.data["percent"] * duration / 100, duration)
    finally:
        bar.close()
    return await client.show(job_id)


def why_not(job: dict[str, Any]) -> str:
    """Of one that was not completed."""
    return str(job["error"]["message"]) if job["error"] else f"it was {job['status']}"


@command.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@asks_a_server
@click.pass_context
def cancel(ctx: click.Context, job_ids: tuple[str, ...], server: str) -> None:
    """Stop jobs: at once where they wait, within seconds where they are worked on."""

    async def one(client: ServerClient, job_id: str) -> None:
        job = await client.cancel(job_id)
        click.echo(f"{job_id} {'cancelled' if job['status'] == 'cancelled' else 'is being stopped'}")

    _for_each(ctx, server, job_ids, one)


@command.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@asks_a_server
@click.pass_context
def retry(ctx: click.Context, job_ids: tuple[str, ...], server: str) -> None:
    """Have failed and cancelled jobs worked on again."""

    async def one(client: ServerClient, job_id: str) -> None:
        click.echo(f"{job_id} {(await client.retry(job_id))['status']}")

    _for_each(ctx, server, job_ids, one)


Item = TypeVar("Item")


def _for_each(
    ctx: click.Context,
    server: str,
    items: Sequence[Item],
    act: Callable[[ServerClient, Item], Awaitable[None]],
) -> None:
    """One after the other; what fails does not stop the others. One alone has the exit code of its error."""

    async def all_of_them(client: ServerClient) -> int:
        codes = []
        for item in items:
            try:
                await act(client, item)
            except VoiceForgeError as error:
                if len(items) == 1:
                    codes.append(report(error, ctx))
                else:
                    print_traceback(error, ctx)
                    complain(error.message)
                    codes.append(exit_code(error) and EXIT_FAILED)
        return max(codes, default=0)

    ctx.exit(_ask(server, all_of_them))


def _ask(server: str, act: Callable[[ServerClient], Awaitable[Any]]) -> Any:
    from voiceforge.cli import event_loop
    from voiceforge.cli.server_client import ServerClient

    async def asking() -> Any:
        async with ServerClient(server, os.environ.get(KEY_VARIABLE)) as client:
            return await act(client)

    return event_loop.run(asking())


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise click.UsageError("--metadata is a JSON object, such as '{\"call\": 7}'")
    return value
