"""What an engine host and those who use it say to each other. Positions in time are the host's own business:
nothing here carries a clock reading."""

from __future__ import annotations

from dataclasses import dataclass

from voiceforge.errors import VoiceForgeError
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis
from voiceforge.speech.engines.device import RunsOn
from voiceforge.speech.engines.tickets import Priority
from voiceforge.speech.transcript.types import ModelRef

# -- from those who use it


@dataclass(frozen=True, slots=True)
class Open:
    """deadline_s: from now."""

    ticket: int
    priority: Priority
    tenant: str
    deadline_s: float | None


@dataclass(frozen=True, slots=True)
class Submit:
    """The samples of the window follow."""

    item: int
    ticket: int
    options: DecodeOptions


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody waits for that window any more; it is not answered."""

    item: int


@dataclass(frozen=True, slots=True)
class CloseTicket:
    ticket: int


@dataclass(frozen=True, slots=True)
class Pulse:
    """How are you? Answered with a `Status` at any time, also while the engine works."""


@dataclass(frozen=True, slots=True)
class Retire:
    """Take nothing new, finish the batches in progress, say `Bye` and end."""


# -- from the host


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message on every connection."""

    capabilities: Capabilities
    model: ModelRef
    runs_on: RunsOn


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """Instead of `Hello`: the model could not be loaded, and the host ends."""

    error: VoiceForgeError


@dataclass(frozen=True, slots=True)
class Opened:
    ticket: int


@dataclass(frozen=True, slots=True)
class Refused:
    ticket: int
    error: VoiceForgeError


@dataclass(frozen=True, slots=True)
class Started:
    """The engine has these windows now; should the host end before it answers, they are suspects."""

    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Done:
    item: int
    hypothesis: Hypothesis


@dataclass(frozen=True, slots=True)
class Failed:
    item: int
    error: VoiceForgeError


@dataclass(frozen=True, slots=True)
class Waited:
    """For the metrics of whoever sent the window."""

    priority: Priority
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchDone:
    rows: int
    audio_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """waiting: windows by class. running_s: how long the oldest batch has been running; None: none is."""

    waiting: dict[Priority, int]
    open_tickets: int
    running_s: float | None


@dataclass(frozen=True, slots=True)
class Bye:
    """The host ends on purpose: what it was asked and has not answered was not begun."""
