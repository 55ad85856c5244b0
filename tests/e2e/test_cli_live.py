"""`voiceforge listen` and `voiceforge stream`, in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

Completed = subprocess.CompletedProcess[str]
Run = Callable[..., Completed]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def spoken(clips: dict[str, Path], tmp_path: Path) -> Path:
    """The samples of `beckett` alone: s16le, 16 kHz."""
    path = tmp_path / "spoken.pcm"
    with wave.open(str(clips["beckett"])) as file:
        path.write_bytes(file.readframes(file.getnframes()))
    return path


@pytest.fixture
def server(start: Start) -> str:
    process = start("serve", "--port", "0")
    assert process.stdout is not None
    return process.stdout.readline().split()[3]


def test_standard_input_becomes_lines(voiceforge: Run, spoken: Path) -> None:
    done = voiceforge("listen", "-", "--times", piped=spoken)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) >= 2
    assert all(line[2] == ":" for line in lines)
    assert "again" in done.stdout.lower()


def test_programs_get_all_that_is_known(voiceforge: Run, spoken: Path) -> None:
    done = voiceforge("listen", "-", "--json", "--endpointing", "200", piped=spoken)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    finals = [document for document in told if document["type"] == "final"]
    assert [document["utterance"] for document in finals] == list(range(len(finals)))
    assert {document["reason"] for document in finals} <= {"silence", "close"}


def test_a_recording_plays_as_it_was_spoken(voiceforge: Run, spoken: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.wav"
    with wave.open(str(short), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(spoken.read_bytes()[:96_000])
    began = time.monotonic()
    done = voiceforge("listen", short, "--no-interim")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert time.monotonic() - began >= 3.0


def test_ctrl_c_brings_what_was_said_before(start: Start, clips: dict[str, Path]) -> None:
    process = start("listen", clips["beckett"], "--json")
    assert process.stdout is not None
    # Somebody is heard; what follows is in the middle of it.
    assert json.loads(process.stdout.readline())["type"] == "interim"
    process.send_signal(signal.SIGINT)
    rest = [json.loads(line) for line in process.stdout]
    assert process.wait(30) == 0
    assert rest[-1]["type"] == "final"
    assert rest[-1]["text"]


def test_a_server_gives_the_same_captions(voiceforge: Run, server: str, spoken: Path) -> None:
    here = voiceforge("listen", "-", "--no-interim", piped=spoken)
    there = voiceforge("listen", "-", "--no-interim", "--server", server, piped=spoken)
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout


def test_a_recording_is_streamed_to_a_server(voiceforge: Run, server: str, clips: dict[str, Path]) -> None:
    done = voiceforge("stream", clips["two_cities"], "--server", server)
    assert done.returncode == 0, done.stderr
    assert "best of times" in done.stdout.lower()


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("listen", "nothing-here.wav"), 2, "nothing-here.wav"),
        (("listen", "-", "--model", "no-such-model"), 2, "no-such-model"),
        (("listen", "-", "--language", "xx"), 2, "language"),
        (("listen", "-", "--server", "ftp://elsewhere"), 2, "URL"),
        (("listen", "-", "--server", "http://127.0.0.1:9"), 1, "no server"),
        (("listen", "--raw", "s16le"), 2, "standard input"),
        (("listen", "talk.wav", "--device", "1"), 2, "microphone"),
        (("stream", "nothing-here.wav"), 2, "nothing-here.wav"),
    ],
)
def test_one_line_for_what_cannot_be(
    voiceforge: Run, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    done = voiceforge(*arguments)
    assert done.returncode == code
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_is_no_recording_is_told_at_once(voiceforge: Run, server: str, tmp_path: Path) -> None:
    letter = tmp_path / "letter.wav"
    letter.write_text("Dear Sir or Madam")
    done = voiceforge("stream", letter, "--server", server)
    assert done.returncode == 1
    assert "not audio" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_server_that_refuses_is_quoted(voiceforge: Run, server: str, clips: dict[str, Path]) -> None:
    done = voiceforge("stream", clips["beckett"], "--server", server, "--model", "no-such-model")
    assert done.returncode == 2
    assert "no-such-model" in done.stderr
