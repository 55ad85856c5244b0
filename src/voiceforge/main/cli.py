"""The process behind the command `voiceforge`: gives the command line what it needs, built on demand.

Nothing heavy is imported before a command asks for it: `voiceforge --help` starts in an instant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from voiceforge.cli.ports import (
    Choices,
    Installation,
    Listening,
    Ports,
    Schema,
    SettingRow,
    WorkerWish,
    Workshop,
)
from voiceforge.cli.root import root
from voiceforge.main import quick_start
from voiceforge.main.early_signals import EarlySignals

if TYPE_CHECKING:
    from voiceforge.main.settings_loading import LoadedSettings
    from voiceforge.services.backup import Backups, Copied
    from voiceforge.services.doctor import Doctor
    from voiceforge.services.people import People
    from voiceforge.services.personal_data import PersonalData
    from voiceforge.speech.engines.device import DeviceChoice, DeviceFacts


def main() -> None:
    quick_start.hurry()
    root.main(
        prog_name="voiceforge",
        obj=Ports(
            version=_version,
            workshop=_workshop,
            serve=_serve,
            wyoming=_wyoming,
            worker=_worker,
            doctor=_doctor,
            setting_rows=_setting_rows,
            example_config=_example_config,
            schema=_schema,
            installation=_installation,
            backups=_backups,
            personal_data=_personal_data,
        ),
    )


def _version() -> str:
    from importlib.metadata import version

    return version("voiceforge")


def _load(choices: Choices) -> LoadedSettings:
    from voiceforge.main.settings_loading import load_with_origins

    return load_with_origins(choices.config, choices.overrides)


@contextmanager
def _workshop(choices: Choices) -> Iterator[Workshop]:
    from voiceforge.main.build import build
    from voiceforge.main.memory import return_large_blocks
    from voiceforge.main.request_settings import temp_dir, transcribe_defaults

    return_large_blocks()
    loaded = _load(choices)
    _log_for_a_terminal(loaded, choices.quiet)
    settings = loaded.settings
    services = build(settings, version=_version(), any_folder=True, live=choices.live)
    quick_start.settled()
    try:
        yield Workshop(services, transcribe_defaults(settings), temp_dir(settings))
    finally:
        if services.streams is not None:
            services.streams.close()
        services.engines.close(grace_s=0.0)
        services.transcriptions.close()


def _log_for_a_terminal(loaded: LoadedSettings, quiet: bool) -> None:
    """A command speaks for itself: its log lines are only what is wrong, unless a level was asked for."""
    from voiceforge.telemetry.logs_later import configure_logging_later

    log = loaded.settings.log
    asked = ("log", "level") in loaded.origins
    level = "error" if quiet else log.level if asked else "warning"
    configure_logging_later(level, "pretty" if log.format == "auto" else log.format)


def _serve(choices: Choices, on_listening: Callable[[Listening], None]) -> None:
    signals = EarlySignals()
    signals.take()
    from voiceforge.main.serve import serve

    serve(_load(choices).settings, version=_version(), signals=signals, on_listening=on_listening)


def _wyoming(choices: Choices, on_listening: Callable[[Listening], None]) -> None:
    signals = EarlySignals()
    signals.take()
    from voiceforge.main.serve import serve_wyoming

    serve_wyoming(_load(choices).settings, version=_version(), signals=signals, on_listening=on_listening)


def _worker(choices: Choices, wish: WorkerWish, on_ready: Callable[[], None]) -> None:
    signals = EarlySignals()
    signals.take()
    from voiceforge.errors import DependencyMissing

    settings = _load(choices).settings
    try:
        from voiceforge.main.worker import work
    except ModuleNotFoundError as error:
        if error.name not in ("celery", "kombu"):
            raise
        raise DependencyMissing(
            "`voiceforge worker` needs Celery. Run: pip install 'voiceforge[celery]'"
        ) from None
    work(settings, wish, version=_version(), signals=signals, on_ready=on_ready)


def _doctor(choices: Choices) -> Doctor:
    from voiceforge.main.build import build
    from voiceforge.services.doctor import Doctor
    from voiceforge.services.models import ModelSource
    from voiceforge.speech.engines.base import Engine

    loaded = _load(choices)
    _log_for_a_terminal(loaded, choices.quiet)
    settings = loaded.settings

    def choice(facts: DeviceFacts) -> DeviceChoice:
        from voiceforge.speech.engines.device import choose_device

        wish = settings.engine
        return choose_device(wish.device, wish.compute_type, wish.threads, facts=facts)

    def gpu_engine(source: ModelSource) -> Engine:
        from voiceforge.speech.engines.device import choose_device
        from voiceforge.speech.engines.registry import load_engine

        files = source.installed.files
        engine, _ = load_engine(
            source.entry, files.path, files.revision, cores=1, device=lambda: choose_device("cuda")
        )
        return engine

    return Doctor(
        models=build(settings, version=_version(), any_folder=True).models,
        data_dir=settings.data_dir,
        address=(settings.server.host, settings.server.port),
        choose=choice,
        gpu_engine=gpu_engine,
        open_secrets=loaded.open_files,
    )


def _setting_rows(choices: Choices) -> Sequence[SettingRow]:
    from voiceforge.main.settings_text import describe

    return describe(_load(choices))


def _example_config() -> str:
    from voiceforge.main.settings_text import example_toml

    return example_toml()


def _backups(choices: Choices) -> Backups:
    from voiceforge.errors import InvalidRequest
    from voiceforge.services.backup import Backups

    loaded = _load(choices)
    _log_for_a_terminal(loaded, choices.quiet)
    settings = loaded.settings
    for name, elsewhere in (("database.url", settings.database.url), ("store.url", settings.store.url)):
        if elsewhere is not None:
            raise InvalidRequest(
                f"{name} is set: this command copies only what lies in the data folder; "
                "see the page about backup for the tools of databases and object stores"
            )

    def noted(what: str, copied: Copied) -> None:
        from voiceforge.cli import event_loop
        from voiceforge.main.audit import note_backup

        event_loop.run(note_backup(settings, what, copied))

    return Backups(settings.data_dir, version=_version(), on_done=noted)


@asynccontextmanager
async def _schema(choices: Choices) -> AsyncIterator[Schema]:
    from voiceforge.infra.db.migrate import Migrations
    from voiceforge.main.database import open_database

    loaded = _load(choices)
    _log_for_a_terminal(loaded, choices.quiet)
    database = open_database(loaded.settings)
    try:
        yield Migrations(database)
    finally:
        await database.close()


@asynccontextmanager
async def _installation(choices: Choices) -> AsyncIterator[Installation]:
    from voiceforge.infra.db.migrate import Migrations
    from voiceforge.main.audit import build_audit
    from voiceforge.main.authentication import build_keys
    from voiceforge.main.build import build
    from voiceforge.main.database import open_database
    from voiceforge.main.people import build_people
    from voiceforge.main.settings_rules import is_protected

    loaded = _load(choices)
    _log_for_a_terminal(loaded, choices.quiet)
    settings = loaded.settings
    models = build(settings, version=_version(), any_folder=True).models
    database = open_database(settings)
    opened: list[People] = []

    def people() -> People:
        opened.append(build_people(settings, database))
        return opened[-1]

    try:
        yield Installation(
            schema=Migrations(database),
            keys=build_keys(settings, database, models),
            database=database.name,
            people=people,
            audit=build_audit(settings, database),
            protected=is_protected(settings),
        )
    finally:
        for one in opened:
            await one.close()
        await database.close()


@asynccontextmanager
async def _personal_data(choices: Choices) -> AsyncIterator[PersonalData]:
    from voiceforge.errors import Unavailable
    from voiceforge.infra.db.migrate import Migrations
    from voiceforge.main.build import build
    from voiceforge.main.jobs import build_jobs

    loaded = _load(choices)
    _log_for_a_terminal(loaded, choices.quiet)
    services = build(loaded.settings, version=_version(), live=True, keep_results=True)
    room = build_jobs(loaded.settings, services)
    try:
        room.database.refuse(None)
        if not await Migrations(room.database).is_current():
            raise Unavailable("the database is not what this program needs: run `voiceforge db upgrade`")
        yield room.personal_data
    finally:
        await room.close()
        for closed in (services.results, services.limits):
            if closed is not None:
                await closed.close()
        if services.streams is not None:
            services.streams.close()
        services.engines.close(grace_s=0.0)
        services.transcriptions.close()


if __name__ == "__main__":
    main()
