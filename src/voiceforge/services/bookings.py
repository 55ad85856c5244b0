"""What those who transcribe say of it to whoever keeps the accounts; knows no database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from voiceforge.services.access import Caller


@dataclass(frozen=True, slots=True)
class Heard:
    """Audio that was transcribed for somebody.

    door: the surface they came by. work_class: "live", "interactive" or "bulk". latency_s: from the request
    to its result; 0 for streams, which have none. id: the same is booked once; None: it can not come again.
    """

    caller: Caller
    door: str
    model: str
    work_class: str
    audio_s: float
    latency_s: float = 0.0
    cached: bool = False
    id: str | None = None


class Accounts(Protocol):
    """Cheap, and never waits."""

    def check(self, caller: Caller) -> None:
        """
        Raises:
            QuotaExceeded: what the caller may have in a month is used up.
        """
        ...

    def book(self, heard: Heard) -> None: ...


class NoAccounts:
    """For processes that nobody else uses."""

    def check(self, caller: Caller) -> None:
        return

    def book(self, heard: Heard) -> None:
        return
