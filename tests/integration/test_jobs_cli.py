"""`voiceforge jobs` and `voiceforge transcribe --server` against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import Result

from voiceforge.services.samples import sample_recordings
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import says
from voiceforge.testing.job_server import JobServer, job_server
from voiceforge.testing.scripted_cli import Cli, ScriptedCliTranscriptions, ShelfStore

BECKETT, DICKENS = sample_recordings()
PATH = "/v1/transcriptions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    folder = tmp_path_factory.mktemp("jobs")
    with job_server(f"sqlite:///{folder}/jobs.db", folder, vad=SileroModel(), script=says("Hello.")) as made:
        yield made


@pytest.fixture
def cli(tmp_path: Path, server: JobServer, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("VOICEFORGE_SERVER", server.url)
    return Cli(ScriptedCliTranscriptions(), ShelfStore(), tmp_path)


def fine(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def left(server: JobServer) -> list[str]:
    return [job["id"] for job in httpx.get(f"{server.url}{PATH}").json()["data"]]


def test_from_submit_to_show(cli: Cli, server: JobServer) -> None:
    job_id = fine(
        cli.run("jobs", "submit", BECKETT, "--metadata", '{"a": 1}', "--priority", "high", "--words")
    ).strip()
    assert fine(cli.run("jobs", "watch", job_id)) == f"{job_id} completed\n"
    shown = fine(cli.run("jobs", "show", job_id))
    for part in ("completed", BECKETT.name, "high", '{"a": 1}', "Hello."):
        assert part in shown
    told = json.loads(fine(cli.run("jobs", "show", job_id, "--json")))
    assert fine(cli.run("jobs", "show", job_id, "--format", "txt")).strip() == told["text"]
    assert fine(cli.run("jobs", "show", job_id, "--format", "vtt")).startswith("WEBVTT")
    listed = fine(cli.run("jobs", "list", "--status", "completed"))
    assert job_id in listed
    assert json.loads(fine(cli.run("jobs", "list", "--json")))["data"][0]["id"] == job_id


def test_one_key_makes_one_job(cli: Cli) -> None:
    once = fine(cli.run("jobs", "submit", BECKETT, "--idempotency-key", "k1"))
    assert fine(cli.run("jobs", "submit", BECKETT, "--idempotency-key", "k1")) == once
    assert cli.run("jobs", "submit", DICKENS, "--idempotency-key", "k1").exit_code == 1


def test_failed_ones_say_why_and_are_tried_again(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "no.wav").write_text("this is no audio")
    job_id = fine(cli.run("jobs", "submit", tmp_path / "no.wav")).strip()
    watched = cli.run("jobs", "watch", job_id)
    assert (watched.exit_code, watched.stdout) == (1, f"{job_id} failed\n")
    assert "not audio" in watched.stderr
    assert fine(cli.run("jobs", "retry", job_id)) == f"{job_id} queued\n"
    cli.run("jobs", "watch", job_id)
    assert cli.run("jobs", "cancel", job_id).exit_code == 1  # it is over


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "tr_" + "0" * 32), 1, "no such transcription"),
        (("submit", BECKETT, "--model", "nope"), 2, "nope"),
        (("submit", BECKETT, "--metadata", "[]"), 2, "--metadata"),
        (("submit", BECKETT, DICKENS, "--idempotency-key", "k"), 2, "one input"),
        (("submit", "nowhere.wav"), 2, "no such file"),
        (("submit", "http://127.0.0.1/a.wav"), 2, "public internet"),
        (("list", "--server", "nonsense"), 2, "http://127.0.0.1:8000"),
        (("list", "--server", "http://127.0.0.1:9"), 1, "no server answers"),
        (("list", "--cursor", "abc"), 2, "next_cursor"),
    ],
)
def test_mistakes_are_one_line_and_have_their_codes(
    cli: Cli, arguments: tuple[str | Path, ...], code: int, said: str
) -> None:
    result = cli.run("jobs", *arguments)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_transcribe_through_a_server_that_keeps_nothing(cli: Cli, server: JobServer, tmp_path: Path) -> None:
    before = left(server)
    text = fine(cli.run("transcribe", BECKETT, "--server", server.url)).strip()
    assert set(text.split()) == {"Hello."}
    rows = fine(cli.run("transcribe", BECKETT, DICKENS, "--server", server.url, "--format", "json"))
    named = [json.loads(line) for line in rows.splitlines()]
    assert [row["file"] for row in named] == [str(BECKETT), str(DICKENS)]
    assert named[0]["text"] == text
    out = tmp_path / "out"
    fine(cli.run("transcribe", BECKETT, "--server", server.url, "--format", "srt", "--output-dir", out))
    assert (out / "beckett.srt").read_text().startswith("1\n00:00")
    assert left(server) == before
    assert cli.transcriptions.loaded == []


def test_transcribe_through_a_server_tells_what_failed(cli: Cli, server: JobServer, tmp_path: Path) -> None:
    (tmp_path / "no.wav").write_text("this is no audio")
    before = left(server)
    result = cli.run("transcribe", tmp_path / "no.wav", BECKETT, "--server", server.url)
    assert result.exit_code == 1
    assert "not audio" in result.stderr
    assert "Hello." in result.stdout
    assert left(server) == before
    assert cli.run("transcribe", BECKETT, "--server", "http://127.0.0.1:9").exit_code == 1
    assert cli.run("transcribe", BECKETT, "--server", server.url, "--device", "cpu").exit_code == 2
