"""Callbacks in a surface's own words: what became of a job, as clients of that surface expect to be told.

The surface writes down with the job what it will need; what is sent is made anew for every attempt, so that
no text lies anywhere but with the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from voiceforge.infra.db.records import Job, JobError
from voiceforge.speech.transcript.types import Transcript


@dataclass(frozen=True, slots=True)
class CallbackNews:
    """asked: what the surface wrote down. transcript: None where there is none, or it was erased; error:
    then, why, where that is known. sha256: of the audio, in hex; None where that was erased."""

    job: Job
    asked: Mapping[str, Any]
    transcript: Transcript | None
    error: JobError | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Letter:
    """What goes out. method: of HTTP."""

    body: bytes
    method: str = "POST"


class CallbackShape(Protocol):
    def letter(self, news: CallbackNews) -> Letter:
        """May take a while."""
        ...

    def pause_s(self, attempts: int) -> float | None:
        """Seconds until the next attempt after so many; None: there is none."""
        ...
