"""What names mean, what is told of models, and what may be pulled or removed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from voiceforge.errors import Conflict, ModelNotFound, ModelNotInstalled
from voiceforge.infra.modelstore.base import InstalledModel, ModelFiles, OnProgress, PullProgress
from voiceforge.services.models import Models
from voiceforge.speech.engines.catalog import CATALOG, CatalogEntry, Runtime

DEFAULT = "moonshine-tiny-en"
OPENAI = {"whisper-1": "default", "gpt-4o-transcribe": "default", "best": "whisper-large-v3"}


@dataclass
class MemoryStore:
    """Holds ids instead of files; a folder is whole if its name is in `here`."""

    here: dict[str, InstalledModel] = field(default_factory=dict)

    def put(self, model_id: str, revision: str = "main", size_bytes: int = 10) -> None:
        self.here[model_id] = InstalledModel(
            model_id, ModelFiles(Path(model_id), revision), "hub", size_bytes, 1_700_000_000.5
        )

    def installed(self) -> list[InstalledModel]:
        return list(self.here.values())

    def locate(self, entry: CatalogEntry) -> InstalledModel | None:
        return self.here.get(entry.id)

    async def pull(self, entry: CatalogEntry, on_progress: OnProgress) -> InstalledModel:
        on_progress(PullProgress("model.bin", 10, 10))
        self.put(entry.id, entry.revision)
        return self.here[entry.id]

    def remove(self, entry: CatalogEntry) -> None:
        del self.here[entry.id]


@dataclass
class Memory:
    ids: set[str] = field(default_factory=set)

    def is_loaded(self, model_id: str) -> bool:
        return model_id in self.ids


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.put(DEFAULT, "0.0.49")
    return store


@pytest.fixture
def memory() -> Memory:
    return Memory({DEFAULT})


@pytest.fixture
def models(store: MemoryStore, memory: Memory) -> Models:
    return make_models(store, memory)


def make_models(store: MemoryStore, memory: Memory, default: str = DEFAULT, **settings: object) -> Models:
    settings = {"aliases": OPENAI, "has_runtime": lambda _: True, **settings}
    return Models(store, default=default, loaded=memory, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        (None, DEFAULT),
        ("whisper-1", DEFAULT),
        ("Whisper-1", DEFAULT),
        ("gpt-4o-transcribe", DEFAULT),
        ("default", DEFAULT),
        ("best", "whisper-large-v3"),
        ("whisper-small", "whisper-small"),
        ("Systran/faster-whisper-small", "whisper-small"),
        ("acme/whisper-ct2", "acme/whisper-ct2"),
    ],
)
def test_names(models: Models, name: str | None, model_id: str) -> None:
    assert models.resolve(name) == model_id


def test_unknown_names_are_answered_with_the_installed_ones_and_a_guess(models: Models) -> None:
    with pytest.raises(ModelNotFound) as caught:
        models.resolve("whisper-smal")
    assert caught.value.message == (
        "There is no model 'whisper-smal'; did you mean whisper-small? Installed: moonshine-tiny-en."
    )
    assert (caught.value.field, caught.value.choices) == ("model", (DEFAULT,))
    with pytest.raises(ModelNotFound, match=r"There is no model 'zzz'\. Installed"):
        models.get("zzz")


def test_what_is_not_installed_is_answered_with_what_to_run(models: Models) -> None:
    with pytest.raises(ModelNotInstalled) as caught:
        models.require_installed("best")
    assert caught.value.message == (
        "Model whisper-large-v3 is not installed. Run: voiceforge models pull whisper-large-v3. "
        "Installed: moonshine-tiny-en."
    )
    assert caught.value.choices == (DEFAULT,)
    with pytest.raises(ModelNotInstalled, match="voiceforge models pull acme/whisper-ct2"):
        models.require_installed("acme/whisper-ct2")


def test_a_missing_runtime_is_part_of_what_to_run(store: MemoryStore, memory: Memory) -> None:
    def only_moonshine(runtime: Runtime) -> bool:
        return runtime == "moonshine_ort"

    models = make_models(store, memory, has_runtime=only_moonshine)
    both = "pip install 'voiceforge[whisper]' && voiceforge models pull whisper-base"
    assert models.get("whisper-base").hint == both
    store.put("whisper-base")
    info = models.get("whisper-base")
    assert (info.installed, info.hint) == (False, "pip install 'voiceforge[whisper]'")
    with pytest.raises(ModelNotInstalled, match="pip install"):
        models.source("whisper-base")
    assert models.source(None).entry.id == DEFAULT


def test_the_source_of_an_installed_model(models: Models) -> None:
    source = models.source("whisper-1")
    assert source.entry.runtime == "moonshine_ort"
    assert source.installed.files.revision == "0.0.49"


def test_the_list_is_the_catalog_and_what_is_here_besides(store: MemoryStore, memory: Memory) -> None:
    store.put("acme/whisper-ct2", "abc", 77)
    store.put("whisper-tiny")
    store.put("/srv/mine")
    models = make_models(store, memory, named=["/srv/mine", "./not-there"])
    infos = {info.id: info for info in models.list()}
    assert list(infos) == [*(e.id for e in CATALOG), "acme/whisper-ct2", "/srv/mine", "./not-there"]
    assert [i.id for i in models.installed()] == [DEFAULT, "whisper-tiny", "acme/whisper-ct2", "/srv/mine"]
    acme = infos["acme/whisper-ct2"]
    assert (acme.revision, acme.size_bytes, acme.licence, acme.created) == (
        "abc",
        77,
        "unknown",
        1_700_000_000,
    )
    assert (acme.capabilities, acme.hint, acme.loaded) == (None, None, False)
    assert infos["whisper-small"].created == 0


def test_what_is_told_of_a_model(models: Models) -> None:
    info = models.get("whisper-1")
    assert (info.id, info.installed, info.loaded, info.hint) == (DEFAULT, True, True, None)
    assert (info.languages, info.licence, info.revision) == (("en",), "MIT", "0.0.49")
    small = models.get("small")
    assert (small.installed, small.loaded) == (False, False)
    assert small.hint == "voiceforge models pull whisper-small"
    assert small.size_bytes == 486_212_372
    assert small.capabilities
    assert small.capabilities["tasks"] == ["transcribe", "translate"]
    assert json.loads(json.dumps(asdict(small)))["id"] == "whisper-small", "surfaces make JSON of it"


def test_nothing_is_known_of_a_repository_nobody_pulled(models: Models, store: MemoryStore) -> None:
    with pytest.raises(ModelNotInstalled):
        models.get("acme/whisper-ct2")
    store.put("acme/whisper-ct2")
    assert models.get("acme/whisper-ct2").installed


def test_the_files_of_a_model_that_is_here_tell_what_it_is(
    models: Models, store: MemoryStore, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(b"12345")
    (tmp_path / "vocabulary.json").write_text('["a", "", "b"]')
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": ["<|de|>", "<|jw|>", "<|notimestamps|>"]}')
    store.here["acme/whisper-ct2"] = InstalledModel(
        "acme/whisper-ct2", ModelFiles(tmp_path, "main"), "hub", 5, 0.0, licence="cc-by-4.0"
    )
    info = models.get("acme/whisper-ct2")
    assert (info.source, info.licence) == ("acme/whisper-ct2", "cc-by-4.0")
    assert info.folder == str(tmp_path)
    assert dict(info.files)["model.bin"] == 5
    assert info.languages == ("de", "jv")
    assert info.capabilities
    assert (info.capabilities["tasks"], info.capabilities["word_times"]) == (
        ["transcribe", "translate"],
        False,
    )
    assert models.get("whisper-small").files == ()
    assert models.get("whisper-small").folder is None


def test_the_catalogs_licence_goes_before_the_hubs(
    models: Models, store: MemoryStore, tmp_path: Path
) -> None:
    store.here["whisper-small"] = InstalledModel(
        "whisper-small", ModelFiles(tmp_path, "main"), "hub", 5, 0.0, licence="other"
    )
    assert models.get("whisper-small").licence == "MIT"


def test_capabilities_before_loading(models: Models) -> None:
    turbo = models.capabilities("turbo")
    assert turbo
    assert turbo.tasks == {"transcribe"}
    assert models.capabilities("acme/whisper-ct2") is None


def test_callers_name_no_folders_but_those_configured(store: MemoryStore, memory: Memory) -> None:
    for folder in ("/srv/mine", "./mine", "../secret"):
        store.put(folder)
    models = make_models(store, memory, default="/srv/mine", aliases={"ours": "./mine"})
    assert models.require_installed(None) == "/srv/mine"
    assert models.require_installed("ours") == "./mine"
    with pytest.raises(ModelNotFound):
        models.resolve("../secret")
    assert make_models(store, memory, any_folder=True).require_installed("../secret") == "../secret"


def test_a_folder_without_a_model_says_what_it_lacks(store: MemoryStore, memory: Memory) -> None:
    models = make_models(store, memory, any_folder=True)
    with pytest.raises(ModelNotInstalled, match=r"folder must hold config\.json, model\.bin"):
        models.require_installed("./empty")


async def test_pull_makes_it_installed(models: Models) -> None:
    seen: list[PullProgress] = []
    info = await models.pull("best", seen.append)
    assert (info.id, info.installed, info.hint) == ("whisper-large-v3", True, None)
    assert seen == [PullProgress("model.bin", 10, 10)]
    assert models.require_installed("whisper-large-v3") == "whisper-large-v3"


def test_remove(models: Models, store: MemoryStore, memory: Memory) -> None:
    store.put("whisper-large-v3")
    with pytest.raises(Conflict, match="another name for whisper-large-v3"):
        models.remove("best")
    memory.ids.add("whisper-large-v3")
    with pytest.raises(Conflict, match="in use"):
        models.remove("whisper-large-v3")
    memory.ids.clear()
    models.remove("whisper-large-v3")
    assert "whisper-large-v3" not in store.here
    with pytest.raises(ModelNotFound):
        models.remove("nothing")
