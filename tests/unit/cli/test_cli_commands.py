"""Everything but `transcribe`: what is printed, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from voiceforge.cli.ports import WorkerWish
from voiceforge.cli.root import COMMANDS
from voiceforge.errors import Conflict, UpstreamFailed
from voiceforge.services.doctor import Finding
from voiceforge.testing.scripted_cli import Cli, Row


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        *((name,) for name in COMMANDS),
        *(("models", name) for name in ("list", "show", "pull", "remove")),
        *(("db", name) for name in ("check", "upgrade", "downgrade")),
    ],
)
def test_every_command_explains_itself(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli.run(*arguments, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert cli.choices == []


@pytest.mark.parametrize(
    "name", ["transcribe", "serve", "wyoming", "models", "doctor", "bench", "config", "db"]
)
def test_the_help_shows_examples(cli: Cli, name: str) -> None:
    assert f"Examples:\n    voiceforge {name}" in cli.run(name, "--help").stdout.replace("VOICEFORGE", "")


def test_no_command_shows_the_help(cli: Cli) -> None:
    result = cli.run()
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: voiceforge")


def test_an_unknown_command_is_wrong_usage(cli: Cli) -> None:
    result = cli.run("transcrbe", "a.wav")
    assert result.exit_code == 2
    assert result.stderr.startswith("voiceforge: No such command 'transcrbe'")


def test_the_version(cli: Cli) -> None:
    assert cli.run("--version").stdout == "voiceforge 1.2.3\n"


class TestServe:
    def test_only_what_is_given_overrides_the_settings(self, cli: Cli) -> None:
        result = cli.run("serve", "--port", "9000", "--config", "my.toml")
        assert result.exit_code == 0
        assert "http://127.0.0.1:8000" in result.stdout
        assert "http://127.0.0.1:8000/docs" in result.stdout
        (choices,) = cli.choices
        assert choices.config == Path("my.toml")
        given = {name: value for name, value in choices.overrides.items() if value is not None}
        assert given == {"server.port": 9000}

    def test_a_taken_port_is_a_failure(self, cli: Cli) -> None:
        cli.serve_error = Conflict("127.0.0.1:8000 is in use")
        result = cli.run("serve")
        assert (result.exit_code, result.stderr) == (1, "voiceforge: 127.0.0.1:8000 is in use\n")

    def test_there_is_no_option_for_the_key(self, cli: Cli) -> None:
        """Other users of a machine can read command lines."""
        assert cli.run("serve", "--api-key", "secret").exit_code == 2


class TestWyoming:
    def test_what_is_given_overrides_the_settings(self, cli: Cli) -> None:
        result = cli.run("wyoming", "--host", "0.0.0.0", "--allow", "10.0.0.0/8", "--allow", "192.168.1.7")
        assert result.exit_code == 0
        (choices,) = cli.choices
        assert {name: value for name, value in choices.overrides.items() if value is not None} == {
            "wyoming.enabled": True,
            "wyoming.host": "0.0.0.0",
            "wyoming.allow": ("10.0.0.0/8", "192.168.1.7"),
        }

    def test_a_taken_port_is_a_failure(self, cli: Cli) -> None:
        cli.serve_error = Conflict("127.0.0.1:10300 is in use")
        assert cli.run("wyoming").exit_code == 1


class TestModels:
    def test_the_list_tells_what_is_here(self, cli: Cli) -> None:
        cli.store.put("whisper-tiny")
        lines = {line.split()[0]: line for line in cli.run("models", "list").stdout.splitlines()}
        assert "default" in lines["moonshine-tiny-en"]
        assert "installed" in lines["whisper-tiny"]
        assert "1.5 MB" in lines["whisper-tiny"]
        assert "available" in lines["whisper-small"]
        assert "default" not in lines["whisper-tiny"]

    def test_the_list_of_the_installed(self, cli: Cli) -> None:
        lines = cli.run("models", "list", "--installed").stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["model", "moonshine-tiny-en"]

    def test_json_is_for_programs(self, cli: Cli) -> None:
        models = json.loads(cli.run("models", "list", "--json").stdout)
        assert [model["id"] for model in models if model["installed"]] == ["moonshine-tiny-en"]
        assert [model["id"] for model in models if model["default"]] == ["moonshine-tiny-en"]
        assert json.loads(cli.run("models", "show", "tiny", "--json").stdout)["id"] == "whisper-tiny"

    def test_show_says_how_to_get_it(self, cli: Cli) -> None:
        text = cli.run("models", "show", "whisper-small").stdout
        assert "voiceforge models pull whisper-small" in text
        assert "MIT" in text

    def test_an_unknown_model_is_wrong_usage(self, cli: Cli) -> None:
        result = cli.run("models", "show", "whisper-smal")
        assert result.exit_code == 2
        assert "did you mean whisper-small?" in result.stderr

    def test_pull_and_remove(self, cli: Cli) -> None:
        pulled = cli.run("models", "pull", "whisper-tiny")
        assert (pulled.exit_code, pulled.stderr) == (0, "")
        assert pulled.stdout.startswith("whisper-tiny is here: 1.5 MB, revision ")
        assert "whisper-tiny" in cli.store.shelf
        removed = cli.run("models", "remove", "whisper-tiny")
        assert (removed.exit_code, removed.stdout) == (0, "whisper-tiny is removed\n")
        assert "whisper-tiny" not in cli.store.shelf
        assert cli.run("models", "remove", "whisper-tiny").exit_code == 2

    def test_a_pull_that_breaks_off_is_a_failure(self, cli: Cli) -> None:
        cli.store.pull_error = UpstreamFailed("the hub broke off")
        result = cli.run("models", "pull", "whisper-tiny", "-q")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "voiceforge: the hub broke off\n"


class TestDoctor:
    def test_one_line_each_with_the_mend(self, cli: Cli) -> None:
        result = cli.run("doctor")
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "ok    cpu           2 cores",
            "warn  disk          full — make room",
        ]
        assert cli.doctor.gpu is False

    def test_a_failure_makes_the_exit_code(self, cli: Cli) -> None:
        cli.doctor.findings.append(Finding("codecs", "fail", "gone"))
        assert cli.run("doctor").exit_code == 1
        as_json = cli.run("doctor", "--json", "--gpu")
        assert as_json.exit_code == 1
        assert json.loads(as_json.stdout)[-1] == {
            "name": "codecs",
            "level": "fail",
            "detail": "gone",
            "mend": None,
        }
        assert cli.doctor.gpu is True


class TestConfig:
    def test_values_with_their_sources(self, cli: Cli) -> None:
        cli.rows = [
            Row("server.port", "9000", "env VOICEFORGE_SERVER__PORT"),
            Row("api_key", "********", "file x"),
        ]
        assert cli.run("config", "show").stdout.splitlines() == [
            "setting      source                       value",
            "server.port  env VOICEFORGE_SERVER__PORT  9000",
            "api_key      file x                       ********",
        ]

    def test_json_has_real_values(self, cli: Cli) -> None:
        values = {
            "server.port": "9000",
            "api_key": "********",
            "engine.threads": "unset",
            "models.preload": '["a"]',
            "profile": '"staging"',
        }
        cli.rows = [Row(name, value, "default") for name, value in values.items()]
        shown = json.loads(cli.run("config", "show", "--json").stdout)
        assert {name: entry["value"] for name, entry in shown.items()} == {
            "server.port": 9000,
            "api_key": "********",
            "engine.threads": None,
            "models.preload": ["a"],
            "profile": "staging",
        }

    def test_the_example(self, cli: Cli) -> None:
        assert cli.run("config", "example").stdout == "# an example\n"


class TestDemo:
    def test_text_timings_and_what_next(self, cli: Cli) -> None:
        result = cli.run("demo")
        assert result.exit_code == 0, result.stderr
        assert "beckett.wav" in result.stdout
        assert "Hello there. This is a test." in result.stdout
        assert "voiceforge serve" in result.stdout
        assert cli.transcriptions.loaded == ["fake"]


class TestBench:
    @pytest.fixture
    def manifest(self, tmp_path: Path) -> Path:
        rows = [
            {"audio": "a.wav", "text": "Hello there. This is a test.", "kind": "said"},
            {"audio": "b.wav", "text": "Hello there, this was a test!", "kind": "said"},
            {"audio": "gone.wav", "text": "x", "kind": "gone"},
        ]
        for name in ("a.wav", "b.wav"):
            (tmp_path / name).write_bytes(b"sound")
        path = tmp_path / "m.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    @pytest.fixture(autouse=True)
    def _needs_the_extra(self) -> None:
        pytest.importorskip("jiwer")
        pytest.importorskip("whisper_normalizer")

    def test_a_table_per_kind_and_in_all(self, cli: Cli, manifest: Path) -> None:
        cli.transcriptions.models = {"moonshine-tiny-en": "moonshine-tiny-en"}
        result = cli.run("bench", manifest, "--json", manifest.parent / "r.json")
        assert result.exit_code == 0, result.stderr
        rows = {line.split()[1]: line.split() for line in result.stdout.splitlines() if len(line.split()) > 1}
        assert rows["said"][2] == "2"
        assert "8.3" in rows["said"]  # one word of twelve
        assert rows["total"][2] == "3"
        assert "gone.wav: internal_error" in result.stderr
        report = json.loads((manifest.parent / "r.json").read_text())
        assert report["models"][0]["totals"]["failed"] == {"internal_error": 1}

    def test_some_of_it(self, cli: Cli, manifest: Path) -> None:
        cli.transcriptions.models = {"moonshine-tiny-en": "moonshine-tiny-en"}
        report = manifest.parent / "r.json"
        result = cli.run("bench", manifest, "--kind", "said", "--limit", 1, "--json", report)
        assert result.exit_code == 0, result.stderr
        (model,) = json.loads(report.read_text())["models"]
        assert [file["file"] for file in model["files"]] == ["a.wav"]

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (("--kind", "sung"), "choose from gone, said"),
            (("--normaliser", "fancy"), "whisper"),
            (("--model", "nope"), "no model 'nope'"),
        ],
    )
    def test_wrong_usage(self, cli: Cli, manifest: Path, arguments: tuple[str, ...], complaint: str) -> None:
        result = cli.run("bench", manifest, *arguments)
        assert result.exit_code == 2
        assert complaint in result.stderr

    def test_a_missing_manifest(self, cli: Cli, tmp_path: Path) -> None:
        result = cli.run("bench", tmp_path / "none.jsonl")
        assert result.exit_code == 2
        assert result.stderr.startswith("voiceforge: cannot read the manifest")


def test_worker_passes_its_wishes_on_and_says_when_it_is_there(cli: Cli) -> None:
    plain = cli.run("worker")
    assert (plain.exit_code, plain.output) == (0, "VoiceForge works on jobs\n")
    assert cli.run("worker", "--lanes", "interactive, bulk", "--concurrency", "2").exit_code == 0
    assert cli.run("worker", "--metrics", "127.0.0.1:9100").exit_code == 0
    assert cli.worker_wishes == [
        WorkerWish(),
        WorkerWish(("interactive", "bulk"), 2),
        WorkerWish(metrics=("127.0.0.1", 9100)),
    ]
    assert "does not look like" in cli.run("worker", "--metrics", "9100").output


def test_worker_knows_its_lanes(cli: Cli) -> None:
    answer = cli.run("worker", "--lanes", "bulk,urgent")
    assert answer.exit_code == 2
    assert "no lane 'urgent'; choose from interactive, bulk, training, maintenance" in answer.output
    assert cli.worker_wishes == []
