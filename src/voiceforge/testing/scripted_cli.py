"""The command line around scripted services: in process, with no model, no network and no settings read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from click.testing import CliRunner, Result

from voiceforge.cli.ports import Choices, Installation, Listening, Ports, Schema, WorkerWish, Workshop
from voiceforge.cli.root import root
from voiceforge.errors import ModelNotInstalled, VoiceForgeError
from voiceforge.infra.modelstore.base import InstalledModel, ModelFiles, ModelStore, OnProgress, PullProgress
from voiceforge.services.backup import Backups
from voiceforge.services.container import Services
from voiceforge.services.doctor import Doctor, Finding
from voiceforge.services.models import Models
from voiceforge.services.personal_data import PersonalData
from voiceforge.speech.engines.catalog import CatalogEntry
from voiceforge.speech.formats import FORMATS
from voiceforge.speech.options import AudioLimits, TranscribeOptions
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services


class ScriptedCliTranscriptions(ScriptedTranscriptions):
    """`loaded`: models that were preloaded; `load_error` stops that."""

    loaded: list[str]
    load_error: VoiceForgeError | None

    def __init__(self) -> None:
        super().__init__()
        self.loaded = []
        self.load_error = None

    def extension(self, fmt: str) -> str:
        return FORMATS[fmt].extension

    def preload_stages(self) -> None:
        return None

    def preload(self, model_id: str) -> None:
        if self.load_error is not None:
            raise self.load_error
        self.loaded.append(model_id)


@dataclass
class ShelfStore:
    """A model store in memory; `shelf` is what is here."""

    shelf: dict[str, InstalledModel] = field(default_factory=dict)
    pull_error: VoiceForgeError | None = None

    def put(self, model_id: str, revision: str = "r1") -> None:
        self.shelf[model_id] = InstalledModel(
            model_id, ModelFiles(Path("nowhere"), revision), "hub", 1_500_000, 1_700_000_000.0
        )

    def installed(self) -> list[InstalledModel]:
        return list(self.shelf.values())

    def locate(self, entry: CatalogEntry) -> InstalledModel | None:
        return self.shelf.get(entry.id)

    async def pull(self, entry: CatalogEntry, on_progress: OnProgress) -> InstalledModel:
        if self.pull_error is not None:
            raise self.pull_error
        for done in (0, 500, 1000):
            on_progress(PullProgress("model.bin", done, 1000))
        self.put(entry.id, entry.revision)
        return self.shelf[entry.id]

    def remove(self, entry: CatalogEntry) -> None:
        if self.shelf.pop(entry.id, None) is None:
            raise ModelNotInstalled(f"{entry.id} is not installed")


class _NothingLoaded:
    def is_loaded(self, model_id: str) -> bool:
        return False


@dataclass(frozen=True)
class Row:
    """One setting."""

    name: str
    value: str
    source: str


class ScriptedDoctor:
    """`gpu`: what it was asked."""

    def __init__(self) -> None:
        self.findings = [Finding("cpu", "ok", "2 cores"), Finding("disk", "warn", "full", "make room")]
        self.gpu: bool | None = None

    def examine(self, *, gpu: bool = False) -> Iterator[Finding]:
        self.gpu = gpu
        yield from self.findings


@dataclass
class Cli:
    """`run` is the command line; the rest is what it finds, and what it was asked."""

    transcriptions: ScriptedCliTranscriptions
    store: ShelfStore
    temp_dir: Path
    doctor: ScriptedDoctor = field(default_factory=ScriptedDoctor)
    rows: list[Row] = field(default_factory=list)
    choices: list[Choices] = field(default_factory=list)
    worker_wishes: list[WorkerWish] = field(default_factory=list)
    workshop_error: Exception | None = None
    serve_error: Exception | None = None
    closed: int = 0

    def run(self, *arguments: str | Path) -> Result:
        return CliRunner().invoke(
            root, [str(argument) for argument in arguments], obj=self._ports(), prog_name="voiceforge"
        )

    def _ports(self) -> Ports:
        return Ports(
            version=lambda: "1.2.3",
            workshop=self._workshop,
            serve=self._serve,
            wyoming=self._serve,
            worker=self._worker,
            doctor=self._doctor,
            setting_rows=self._setting_rows,
            example_config=lambda: "# an example\n",
            schema=self._schema,
            installation=self._installation,
            backups=lambda choices: Backups(self.temp_dir, version="1.2.3"),
            personal_data=self._personal_data,
        )

    @contextmanager
    def _workshop(self, choices: Choices) -> Iterator[Workshop]:
        self.choices.append(choices)
        if self.workshop_error is not None:
            raise self.workshop_error
        models = Models(
            cast(ModelStore, self.store),
            default="moonshine-tiny-en",
            aliases={"whisper-1": "default"},
            loaded=_NothingLoaded(),
            has_runtime=lambda runtime: True,
        )
        services: Services = replace(
            scripted_services(self.transcriptions, self.temp_dir, ready=False), models=models
        )
        defaults = TranscribeOptions(limits=AudioLimits(max_duration_s=60.0))
        try:
            yield Workshop(services, defaults, self.temp_dir / "tmp")
        finally:
            services.engines.close(0.0)
            self.closed += 1

    def _serve(self, choices: Choices, on_listening: Callable[[Listening], None]) -> None:
        self.choices.append(choices)
        if self.serve_error is not None:
            raise self.serve_error
        on_listening(Listening("http://127.0.0.1:8000", "fake", protected=False))

    def _worker(self, choices: Choices, wish: WorkerWish, on_ready: Callable[[], None]) -> None:
        self.choices.append(choices)
        self.worker_wishes.append(wish)
        on_ready()

    def _doctor(self, choices: Choices) -> Doctor:
        return cast(Doctor, self.doctor)

    def _schema(self, choices: Choices) -> AbstractAsyncContextManager[Schema]:
        raise NotImplementedError("scripts have no database")

    def _personal_data(self, choices: Choices) -> AbstractAsyncContextManager[PersonalData]:
        raise NotImplementedError("scripts have no database")

    def _installation(self, choices: Choices) -> AbstractAsyncContextManager[Installation]:
        raise NotImplementedError("scripts have no database")

    def _setting_rows(self, choices: Choices) -> list[Row]:
        self.choices.append(choices)
        return self.rows
