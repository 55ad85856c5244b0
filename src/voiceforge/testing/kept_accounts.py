"""Accounts that a test can look into, and close."""

from __future__ import annotations

from dataclasses import dataclass, field

from voiceforge.errors import QuotaExceeded
from voiceforge.services.access import Caller
from voiceforge.services.bookings import Heard


@dataclass
class KeptAccounts:
    """used_up: nobody may have any more."""

    heard: list[Heard] = field(default_factory=list)
    used_up: bool = False

    def check(self, caller: Caller) -> None:
        if self.used_up:
            raise QuotaExceeded("the audio minutes of this month are used up", retry_after_s=60)

    def book(self, heard: Heard) -> None:
        self.heard.append(heard)
