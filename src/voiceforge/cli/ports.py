"""What the commands need from the process they run in; `main` passes it in, so that nothing is built
(or even imported) before a command asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from voiceforge.services.audit import Audit
    from voiceforge.services.backup import Backups
    from voiceforge.services.container import Services
    from voiceforge.services.doctor import Doctor
    from voiceforge.services.keys import Keys
    from voiceforge.services.people import People
    from voiceforge.services.personal_data import PersonalData
    from voiceforge.speech.options import TranscribeOptions


@dataclass(frozen=True, slots=True)
class Choices:
    """What the command line says about the settings.

    config: the TOML file named there; None: the usual places.
    overrides: settings by dotted name; None values count as not given.
    quiet: only errors are logged.
    live: live streams are wanted.
    """

    config: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    quiet: bool = False
    live: bool = False


@dataclass(frozen=True, slots=True)
class Workshop:
    """Services in this process, ready to work.

    defaults: what a request that names no option gets.
    temp_dir: for what must become a file first; may have to be made.
    """

    services: Services
    defaults: TranscribeOptions
    temp_dir: Path


class SettingRow(Protocol):
    """One setting in force; secrets come masked."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def source(self) -> str: ...


class Schema(Protocol):
    """The state of a database's tables, told by revisions.

    Raises (every method but `head`):
        Unavailable: the database does not answer.
    """

    def head(self) -> str:
        """The revision this program needs."""
        ...

    async def current(self) -> str | None:
        """The one it has; None: it is empty."""
        ...

    async def drift(self) -> list[str]:
        """How its tables differ from those of `head`."""
        ...

    async def upgrade(self, to: str = "head") -> str: ...
    async def downgrade(self, to: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Installation:
    """What a server of these settings would work with, without the server.

    people: raises DependencyMissing where the packages for accounts are not installed. database: where it is,
    without secrets. protected: the settings let nobody in who is not known.
    """

    schema: Schema
    keys: Keys
    people: Callable[[], People]
    audit: Audit
    database: str
    protected: bool

    async def check(self) -> None:
        """
        Raises:
            Unavailable: the database does not answer, or is not what this program needs.
        """
        from voiceforge.errors import Unavailable

        if await self.schema.current() != self.schema.head():
            raise Unavailable("the database is not what this program needs: run `voiceforge init`")


@dataclass(frozen=True, slots=True)
class WorkerWish:
    """lanes: whose jobs; none: all. at_once: None: as the settings say. metrics: host and port that
    tell them; None: nobody asks."""

    lanes: tuple[str, ...] = ()
    at_once: int | None = None
    metrics: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    """
    workshop: builds the services and closes them again.
    serve: runs the server until it is told to stop; `on_listening` gets its address once it answers.
    wyoming: likewise one that speaks nothing but Wyoming.
    worker: works on jobs until it is told to stop; the last argument is called once it is there for them.
    backups: of the embedded default; raises InvalidRequest where the settings name other stores.
    schema: of the database that the settings name.
    installation: likewise, with what is known of keys and people.
    personal_data: of the database, the store and the folders that the settings name.
    All of them raise ConfigurationError where the settings cannot work.
    """

    version: Callable[[], str]
    workshop: Callable[[Choices], AbstractContextManager[Workshop]]
    serve: Callable[[Choices, Callable[[Listening], None]], None]
    wyoming: Callable[[Choices, Callable[[Listening], None]], None]
    worker: Callable[[Choices, WorkerWish, Callable[[], None]], None]
    doctor: Callable[[Choices], Doctor]
    setting_rows: Callable[[Choices], Sequence[SettingRow]]
    example_config: Callable[[], str]
    schema: Callable[[Choices], AbstractAsyncContextManager[Schema]]
    installation: Callable[[Choices], AbstractAsyncContextManager[Installation]]
    backups: Callable[[Choices], Backups]
    personal_data: Callable[[Choices], AbstractAsyncContextManager[PersonalData]]


@dataclass(frozen=True, slots=True)
class Listening:
    """A server that answers. `model` may still be loading. `wyoming`: where it speaks that, if it does."""

    url: str
    model: str
    protected: bool
    wyoming: str | None = None
