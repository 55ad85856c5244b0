"""The pages leave out nothing a user can name: commands, options, routes, fields, metrics, error codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from voiceforge import errors
from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.native.errors import STATUSES as NATIVE_STATUSES
from voiceforge.api.native.schemas import Options, TranscriptOut
from voiceforge.api.openai_compat.errors import STATUSES as OPENAI_STATUSES
from voiceforge.api.openai_compat.schemas import TranscriptionFields
from voiceforge.cli.root import root
from voiceforge.main.build import build
from voiceforge.main.jobs import build_jobs
from voiceforge.main.settings import Settings
from voiceforge.main.settings_recognition import DEEPGRAM_MODEL_IDS, OPENAI_MODEL_IDS
from voiceforge.speech.engines.catalog import CATALOG
from voiceforge.speech.formats import FORMATS
from voiceforge.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """From a level-two heading to the next; fails where there is none."""
    found = re.search(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text)
    assert found is not None, f"no section {heading!r}"
    return found[1]


def commands(
    command: click.Command = root, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words after `voiceforge`."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(child, (*path, name))
    else:
        yield path, command


def has(text: str, name: str) -> bool:
    """`name` as a whole word: `--json` is not found in `--json-lines`."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def error_classes(base: type[errors.VoiceForgeError]) -> Iterator[type[errors.VoiceForgeError]]:
    yield base
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from error_classes(child)


ALL_COMMANDS = list(commands())


@pytest.mark.parametrize(("path", "command"), ALL_COMMANDS, ids=[" ".join(path) for path, _ in ALL_COMMANDS])
def test_every_command_and_option_is_documented(path: tuple[str, ...], command: click.Command) -> None:
    text = section(page("cli.md"), f"voiceforge {path[0]}")
    assert has(text, " ".join(("voiceforge", *path)))
    named = [name for option in command.params if isinstance(option, click.Option) for name in option.opts]
    assert [name for name in named if name.startswith("--") and not has(text, name)] == []


def test_the_documented_options_exist() -> None:
    known = {
        name
        for _, command in ALL_COMMANDS
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
    }
    known |= {name for option in root.params for name in option.opts} | {"--help"}
    foreign = {"--json", "--data-binary"}  # curl's
    written = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page("cli.md")))
    assert written - known - foreign == set()


def test_every_route_is_documented(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    services = build(settings, version="0")
    try:
        furnished = build_jobs(settings, services).furnish(services)
        schema = create_app(furnished, HttpConfig(temp_dir=tmp_path, version="0")).openapi()
    finally:
        services.transcriptions.close()
    text = page("rest.md")
    routes = [f"`{method.upper()} {path}`" for path, methods in schema["paths"].items() for method in methods]
    assert len(routes) >= 12
    assert [route for route in routes if route not in text] == []


@pytest.mark.parametrize("name", Options.model_fields)
def test_every_option_of_the_native_api_is_documented(name: str) -> None:
    assert f"\n| `{name}` |" in section(page("rest.md"), "Transcribe")


@pytest.mark.parametrize("name", TranscriptionFields.model_fields)
def test_every_field_of_openai_s_api_is_documented(name: str) -> None:
    assert re.search(rf"`{name}(\[\])?(=\w+)?`", section(page("openai.md"), "Parameters"))


@pytest.mark.parametrize("name", TranscriptOut.model_fields)
def test_every_field_of_the_result_is_documented(name: str) -> None:
    assert re.search(rf"(?m)^\| `{name}[`.]", section(page("rest.md"), "Transcribe"))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_documented(name: str) -> None:
    assert f"\n| `{name}` |" in page("rest.md")


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    exposed = Metrics(version="0").exposition()[0].decode()
    families = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(exposed)
        if family.name.startswith("voiceforge_") and not family.name.endswith("_created")
    }
    written = set(re.findall(r"`(voiceforge_\w+)`", page("rest.md")))
    assert written == families


def test_alerts_are_about_metrics_that_exist() -> None:
    documented = set(re.findall(r"`(voiceforge_\w+)`", page("rest.md")))
    used = set(re.findall(r"voiceforge_\w+", section(page("operations.md"), "Metrics and alerts")))
    assert used
    assert {name.removesuffix("_bucket") for name in used} - documented == set()


def test_every_error_code_stands_with_its_kind_and_statuses() -> None:
    rows = {
        row[0]: row
        for row in re.findall(
            r"(?m)^\| `(\w+)` \| ([^|]+) \| (\d+) \| (\d+) \|$", section(page("rest.md"), "Errors")
        )
    }
    assert set(rows) == {kind.value for kind in errors.ErrorKind}
    for kind in errors.ErrorKind:
        _, codes, native, openai = rows[kind.value]
        assert (int(native), int(openai)) == (NATIVE_STATUSES[kind], OPENAI_STATUSES[kind])
        ours = {
            error.code
            for error in error_classes(errors.VoiceForgeError)
            if error.kind is kind and error is not errors.ConfigurationError
        }
        assert set(re.findall(r"`(\w+)`", codes)) == ours


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, "openai.md") for name in OPENAI_MODEL_IDS]
    + [(name, "deepgram.md") for name in DEEPGRAM_MODEL_IDS],
)
def test_every_alias_is_documented(name: str, file: str) -> None:
    assert f"`{name}`" in section(page(file), "Model names")


def test_the_models_named_in_the_pages_exist() -> None:
    known = {entry.id for entry in CATALOG} | set(OPENAI_MODEL_IDS)
    texts = [path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.rglob("*.md")]]
    named = {name for text in texts for name in re.findall(r"(?<![\w/-])whisper-[a-z][\w.-]*\w(?!…)", text)}
    assert named
    assert named - known - {"whisper-distil", "whisper-normalizer"} == set()


def test_every_test_that_the_page_of_security_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page("security.md"))
    assert len(named) > 20
    for file, test in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"(?:def|class) {test}\b", text), f"{file}::{test}"


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"[\w./-]+\.md\b", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    present = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted(present)


def anchors(text: str) -> set[str]:
    """Of the headings, as the site and code hosts make them."""
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    headings = re.findall(r"(?m)^#+ (.+)$", prose)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_between_pages_resolve() -> None:
    broken = []
    for source in DOCS.rglob("*.md"):
        for target, anchor in re.findall(
            r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)", source.read_text(encoding="utf-8")
        ):
            goal = (source.parent / target).resolve() if target else source
            inside = goal.is_relative_to(DOCS) and goal.is_file()
            if not inside or (anchor and anchor not in anchors(goal.read_text(encoding="utf-8"))):
                broken.append(f"{source.relative_to(DOCS)}: {target}#{anchor}")
    assert broken == []
