"""From what a caller asks to a `JobRequest`, and from jobs to documents."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.requests import Request

from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.native.schemas import Options, PriorityName
from voiceforge.errors import InvalidRequest, NotFound
from voiceforge.services.access import Caller
from voiceforge.services.job_intake import JobRequest, Rank, Retention
from voiceforge.services.job_view import JobView
from voiceforge.services.recordings import Source, UrlSource
from voiceforge.speech.options import TranscribeOptions

IDEMPOTENCY_HEADER = "Idempotency-Key"
_OF_JOBS_ONLY = ("priority", "callback_url", "metadata", "keep_audio_s", "keep_text_s")
_OF_WAITING_ONLY = ("timeout_s",)
_LONGEST_KEY = 255
_LONGEST_TEXTS = 65_536
_LONGEST_NAME = 255
_RANKS: Mapping[PriorityName, Rank] = {"high": Rank.HIGH, "normal": Rank.NORMAL, "low": Rank.LOW}
_PRIORITIES: Mapping[Rank, PriorityName] = {rank: name for name, rank in _RANKS.items()}
_ID = re.compile(r"[a-z]{1,4}_[0-9a-f]{32}")


def refuse_job_options(given: Options) -> None:
    """
    Raises:
        InvalidRequest: something is asked of a job, and none is wanted.
    """
    for name in _OF_JOBS_ONLY:
        if getattr(given, name) is not None:
            raise InvalidRequest(f"{name} belongs to mode=async; this request waits for its text", field=name)


def check_job_options(given: Options) -> None:
    """
    Raises:
        InvalidRequest: something is asked that only who waits can have, or that is too much to be kept.
    """
    for name in _OF_WAITING_ONLY:
        if getattr(given, name) is not None:
            raise InvalidRequest(f"{name} has no meaning with mode=async: nobody waits", field=name)
    for name, texts in (("prompt", [given.prompt or ""]), ("keyterm", given.keyterm)):
        if sum(map(len, texts)) > _LONGEST_TEXTS:
            raise InvalidRequest(f"{name} holds more than {_LONGEST_TEXTS:,} characters", field=name)


def idempotency_key(request: Request) -> str | None:
    """
    Raises:
        InvalidRequest: it is empty, too long, or not printable ASCII.
    """
    keys = request.headers.getlist(IDEMPOTENCY_HEADER)
    if not keys:
        return None
    key = keys[-1].strip()
    if not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"{IDEMPOTENCY_HEADER} has 1 to {_LONGEST_KEY} printable ASCII characters",
            field=IDEMPOTENCY_HEADER,
        )
    return key


def job_request(
    given: Options,
    caller: Caller,
    source: Source,
    options: TranscribeOptions,
    model: str,
    filename: str | None,
    key: str | None,
    unkept_text_s: float,
) -> JobRequest:
    return JobRequest(
        source=source,
        options=options,
        model=model,
        caller=caller,
        rank=_RANKS[given.priority or "normal"],
        metadata=given.metadata or {},
        filename=_name_in(source.url) if isinstance(source, UrlSource) else filename,
        callback_url=given.callback_url,
        idempotency_key=key,
        retention=wanted_retention(given, unkept_text_s),
        door=NativeErrors.name,
    )


def wanted_retention(given: Options, unkept_text_s: float) -> Retention | None:
    """None: as the server's policy says, which a wish can only shorten.

    Args:
        unkept_text_s: how long a text that is not to be kept can be fetched.
    """
    if given.retention == "none":
        return Retention(0.0, unkept_text_s).shortened(Retention(given.keep_audio_s, given.keep_text_s))
    if given.keep_audio_s is None and given.keep_text_s is None:
        return None
    return Retention(given.keep_audio_s, given.keep_text_s)


def _name_in(url: str) -> str | None:
    try:
        name = PurePosixPath(unquote(urlsplit(url).path)).name
    except ValueError:
        return None
    return "".join(char for char in name if char.isprintable())[:_LONGEST_NAME] or None


def job_document(view: JobView) -> dict[str, Any]:
    """A `JobOut`."""
    job = view.job
    return {
        "id": job.id,
        "status": job.status.value,
        "percent": view.percent,
        "seconds_left": None if view.seconds_left is None else round(view.seconds_left, 1),
        "queue_position": view.queue_position,
        "attempts": job.attempts,
        "priority": _PRIORITIES[job.rank],
        "model": {"id": job.model, "revision": None},
        "filename": job.filename,
        "duration": None if job.duration_s is None else round(job.duration_s, 3),
        "metadata": dict(job.metadata),
        "callback_url": job.callback_url,
        "batch_id": job.batch_id,
        "error": None if job.error is None else asdict(job.error),
        "cancel_requested": job.cancel_requested,
        "created_at": iso_time(job.created_at),
        "started_at": iso_time(job.started_at),
        "finished_at": iso_time(job.finished_at),
        "audio_erased_at": iso_time(job.audio_erased_at),
        "text_erased_at": iso_time(job.text_erased_at),
    }


def iso_time(unix_s: float | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    if unix_s is None:
        return None
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix_time(moment: datetime | None) -> float | None:
    """Seconds since 1970, and not before; a time without a zone is UTC."""
    if moment is None:
        return None
    return max((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), 0.0)


def known_id(text: str, what: str) -> str:
    """
    Raises:
        NotFound: we never gave such an id.
    """
    if not _ID.fullmatch(text):
        raise NotFound(f"there is no such {what}")
    return text


def cursor_of(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def id_before(cursor: str | None) -> str | None:
    """The id a page starts behind.

    Raises:
        InvalidRequest: we never gave such a cursor.
    """
    if cursor is None:
        return None
    try:
        found = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        found = ""
    if not _ID.fullmatch(found):
        raise InvalidRequest("this is no next_cursor that we gave", field="cursor")
    return found
