"""The command line as a newcomer meets it: real processes, the embedded engine, real speech."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pysrt
import pytest
import webvtt

from voiceforge.testing.hub_server import COMMIT, REPOSITORY, hub_server
from voiceforge.testing.tiny_whisper import build_tiny_whisper

Completed = subprocess.CompletedProcess[str]
Run = Callable[..., Completed]
Imports = Callable[..., tuple[Completed, set[str]]]
Clips = dict[str, Path]

# What `--help` must not pay for.
HEAVY = (
    "numpy",
    "onnxruntime",
    "av",
    "soundfile",
    "ctranslate2",
    "fastapi",
    "pydantic",
    "httpx",
    "rich",
    "asyncio",
)

# What a transcription must not: servers, other engines, and what only a terminal or a log line needs.
NOT_FOR_ONE_RECORDING = (
    "av",
    "ctranslate2",
    "faster_whisper",
    "fastapi",
    "httpx",
    "matplotlib",
    "psutil",
    "redis",
    "rich",
    "structlog",
    "uvicorn",
)


@pytest.fixture
def imports(environment: dict[str, str]) -> Callable[..., tuple[Completed, set[str]]]:
    """Runs a command; what it did, and the modules it loaded."""
    probe = (
        "import sys; from voiceforge.main.cli import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )

    def run(*arguments: str | Path) -> tuple[Completed, set[str]]:
        done = subprocess.run(
            [sys.executable, "-c", probe, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0
        return done, set(done.stderr.split())

    return run


class TestStart:
    def test_the_help_imports_nothing_heavy(self, imports: Imports) -> None:
        done, loaded = imports("--help")
        assert "transcribe" in done.stdout
        assert "voiceforge.cli.transcribe" in loaded  # its help line was shown
        assert loaded.isdisjoint(HEAVY)

    def test_a_transcription_imports_only_what_it_needs(self, imports: Imports, clips: Clips) -> None:
        done, loaded = imports("transcribe", clips["beckett"])
        assert "fail better" in done.stdout.lower()
        assert "onnxruntime" in loaded
        assert loaded.isdisjoint(NOT_FOR_ONE_RECORDING)

    def test_the_version_is_the_distribution_s(self, voiceforge: Run) -> None:
        assert voiceforge("--version").stdout.startswith("voiceforge ")

    def test_completion(self, voiceforge: Run) -> None:
        done = voiceforge(settings={"_VOICEFORGE_COMPLETE": "bash_source"})
        assert "_VOICEFORGE_COMPLETE=bash_complete" in done.stdout

    def test_the_console_script_is_this_program(self) -> None:
        script = shutil.which("voiceforge", path=str(Path(sys.executable).parent))
        if script is None:
            pytest.skip("not installed as a script")
        done = subprocess.run([script, "--version"], capture_output=True, text=True)
        assert done.stdout.startswith("voiceforge ")


class TestTranscribe:
    def test_text_alone_is_printed(self, voiceforge: Run, clips: dict[str, Path]) -> None:
        done = voiceforge("transcribe", clips["beckett"])
        assert (done.returncode, done.stderr) == (0, "")
        assert "try again" in done.stdout.lower()
        assert done.stdout.endswith("\n")

    def test_the_native_result_with_word_times(self, voiceforge: Run, clips: dict[str, Path]) -> None:
        done = voiceforge("transcribe", clips["beckett"], "--format", "json", "--words")
        assert (done.returncode, done.stderr) == (0, "")
        document = json.loads(done.stdout)
        assert document["model"]["id"] == "moonshine-tiny-en"
        assert document["language"] == "en"
        assert 9.9 < document["duration"] < 10.1
        assert " ".join(word["word"] for word in document["words"]) == document["text"]
        assert all(0 <= word["start"] <= word["end"] <= document["duration"] for word in document["words"])
        assert document["rtf"] > 0

    def test_it_leaves_nothing_in_the_home_of_its_user(
        self, voiceforge: Run, clips: dict[str, Path], tmp_path: Path
    ) -> None:
        """onnxruntime would: an id of the machine, and what is still to be sent to its maker."""
        home = tmp_path / "home"
        home.mkdir()
        unlike_ci = {"CI": "", "GITHUB_ACTIONS": "", "ORT_TELEMETRY_DISABLED": ""}
        settings = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), **unlike_ci}
        assert voiceforge("transcribe", clips["beckett"], settings=settings).returncode == 0
        assert list(home.rglob("*")) == []

    def test_openai_s_verbose_json(self, voiceforge: Run, clips: dict[str, Path]) -> None:
        document = json.loads(voiceforge("transcribe", clips["beckett"], "--format", "verbose_json").stdout)
        assert document["segments"]

    def test_subtitles_that_others_can_read(self, voiceforge: Run, clips: dict[str, Path]) -> None:
        srt = voiceforge("transcribe", clips["beckett"], "--format", "srt")
        vtt = voiceforge("transcribe", clips["beckett"], "--format", "vtt")
        assert (srt.returncode, vtt.returncode) == (0, 0)
        cues = pysrt.from_string(srt.stdout)
        assert "again" in cues.text.lower()
        captions = webvtt.from_buffer(StringIO(vtt.stdout))
        assert len(list(captions)) == len(cues)

    def test_a_table(self, voiceforge: Run, clips: dict[str, Path]) -> None:
        header, *rows = voiceforge("transcribe", clips["beckett"], "--format", "tsv").stdout.splitlines()
        assert header == "start\tend\ttext"
        assert all(len(row.split("\t")) == 3 for row in rows)

    def test_standard_input(self, voiceforge: Run, clips: dict[str, Path], tmp_path: Path) -> None:
        done = voiceforge("transcribe", "-", "--format", "tsv", piped=clips["beckett"])
        assert (done.returncode, done.stderr) == (0, "")
        assert "again" in done.stdout.lower()
        assert list((tmp_path / "data" / "tmp").iterdir()) == []

    def test_a_folder_into_files(self, voiceforge: Run, clips: dict[str, Path], tmp_path: Path) -> None:
        talks = tmp_path / "here" / "talks"
        (talks / "more").mkdir(parents=True)
        for name in ("one.wav", "more/one.wav"):
            shutil.copy(clips["beckett"], talks / name)
        (talks / "broken.mp3").write_text("not audio at all, only text\n" * 50)
        done = voiceforge("transcribe", "talks", "--output-dir", "out", "--format", "vtt")
        assert done.returncode == 1
        out = tmp_path / "here" / "out"
        assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["more/one.vtt", "one.vtt"]
        assert done.stdout.splitlines()[-1].startswith("2 files transcribed, 1 failed: 19.9 s of audio in ")
        (complaint,) = done.stderr.splitlines()
        assert complaint.startswith("voiceforge: talks/broken.mp3: ")

    def test_a_url_into_our_own_network_is_refused(self, voiceforge: Run) -> None:
        done = voiceforge("transcribe", "http://127.0.0.1:9/a.wav")
        assert done.returncode == 1
        assert done.stderr.startswith("voiceforge: http://127.0.0.1:9/a.wav: ")
        assert len(done.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (("missing.wav",), 1),
            (("empty.wav",), 1),
            (("empty.wav", "--model", "nope"), 2),
            (("empty.wav", "--model", "whisper-tiny"), 2),
            (("empty.wav", "--language", "de"), 2),
            (("empty.wav", "--format", "docx"), 2),
            (("empty.wav", "--config", "missing.toml"), 2),
        ],
    )
    def test_failures_are_one_line_each(
        self, voiceforge: Run, tmp_path: Path, arguments: tuple[str, ...], code: int
    ) -> None:
        (tmp_path / "here" / "empty.wav").touch()
        done = voiceforge("transcribe", *arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("voiceforge: ")

    def test_a_reader_that_has_enough(
        self, program: list[str], environment: dict[str, str], clips: dict[str, Path]
    ) -> None:
        """As `voiceforge … | head -c 0`: no traceback."""
        process = subprocess.Popen(
            [*program, "transcribe", str(clips["beckett"])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        with process.stderr:
            assert process.stderr.read() == ""
        assert process.wait() == 1

    def test_input_that_never_ends_does_not_hold_it_up(
        self, program: list[str], environment: dict[str, str], tmp_path: Path
    ) -> None:
        process = subprocess.Popen(
            [*program, "transcribe", "-"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not list((tmp_path / "data").glob("tmp/stdin-*/audio")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        _, stderr = process.communicate()
        assert "Traceback" not in stderr
        assert "Fatal" not in stderr
        assert list((tmp_path / "data" / "tmp").iterdir()) == []


class TestOnATerminal:
    """`pty` gives the program a terminal for everything."""

    def test_progress_is_drawn_and_taken_away(
        self, program: list[str], environment: dict[str, str], clips: dict[str, Path]
    ) -> None:
        code, shown = on_a_terminal([*program, "transcribe", str(clips["two_cities"])], environment)
        assert code == 0
        assert "two_cities.wav" in shown
        assert "%" in shown
        assert re.search(r"\d+%.* [\d.]+x .*\d:\d\d", shown)  # percent, speed, time left
        last = shown.replace("\r", "\n").rstrip().splitlines()[-1]
        assert "%" not in last

    def test_quiet_draws_nothing(
        self, program: list[str], environment: dict[str, str], clips: dict[str, Path]
    ) -> None:
        code, shown = on_a_terminal([*program, "transcribe", "-q", str(clips["beckett"])], environment)
        assert code == 0
        assert "%" not in shown
        assert "again" in shown.lower()

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_ends_it_cleanly(
        self,
        program: list[str],
        environment: dict[str, str],
        clips: dict[str, Path],
        number: signal.Signals,
        code: int,
    ) -> None:
        """Once the bar is up, so that the work is under way."""
        ended, shown = on_a_terminal(
            [*program, "transcribe", *[str(clips["two_cities"])] * 100], environment, at="%", send=number
        )
        assert ended == code
        assert "Traceback" not in shown


def _heeds_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def on_a_terminal(
    command: list[str], environment: dict[str, str], at: str = "", send: signal.Signals | None = None
) -> tuple[int, str]:
    """Exit code and everything shown. Once `at` has been shown, `send` is sent."""
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment | {"TERM": "xterm-256color"},
        start_new_session=True,
        # Whoever is started in the background ignores Ctrl-C, and so would this.
        preexec_fn=_heeds_ctrl_c,
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        readable, _, _ = select.select([main], [], [], 0.2)
        try:
            piece = os.read(main, 65_536) if readable else b""
        except OSError:  # the other side is closed
            break
        shown += piece
        if readable and not piece:
            break
        if send is not None and at.encode() in shown:
            process.send_signal(send)
            send = None
    else:
        process.kill()
    os.close(main)
    return process.wait(), re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode("utf-8", "replace"))


class TestOtherCommands:
    def test_the_demo(self, voiceforge: Run, clips: dict[str, Path]) -> None:
        done = voiceforge("demo")
        assert (done.returncode, done.stderr) == (0, "")
        assert "moonshine-tiny-en loaded in" in done.stdout
        assert "best of times" in done.stdout
        assert "voiceforge serve" in done.stdout

    def test_the_models(self, voiceforge: Run) -> None:
        models = json.loads(voiceforge("models", "list", "--json").stdout)
        (default,) = [model for model in models if model["default"]]
        assert default["id"] == "moonshine-tiny-en"
        assert default["installed"]
        assert voiceforge("models", "remove", "moonshine-tiny-en").returncode == 1

    def test_a_model_is_pulled_shown_used_and_removed(
        self, voiceforge: Run, tmp_path: Path, clips: Clips
    ) -> None:
        pytest.importorskip("faster_whisper")
        made = build_tiny_whisper(tmp_path / "made", multilingual=True)
        with hub_server({path.name: path.read_bytes() for path in made.iterdir()}) as hub:
            hub.cuts = [100_000]  # the connection breaks once
            here = {"VOICEFORGE_MODELS__HUB_ENDPOINT": hub.endpoint}
            pulled = voiceforge("models", "pull", REPOSITORY, settings=here)
            assert (pulled.returncode, pulled.stderr) == (0, "")
            assert pulled.stdout.startswith(f"{REPOSITORY} is here: ")
            assert COMMIT in pulled.stdout
            unknown = voiceforge("models", "pull", "acme/nothing", settings=here)
            assert unknown.returncode == 2
            assert len(unknown.stderr.splitlines()) == 1
        shown = voiceforge("models", "show", REPOSITORY).stdout
        lines = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in shown.splitlines()}
        assert (lines["revision"], lines["licence"]) == (COMMIT, "mit")
        assert "model.bin, 2.0 MB" in shown
        assert " de " in lines["languages"]
        assert lines["tasks"] == "transcribe, translate"
        words = voiceforge("transcribe", clips["beckett"], "--model", REPOSITORY).stdout
        assert "forty two ships sail" in words
        assert voiceforge("models", "remove", REPOSITORY).returncode == 0
        assert voiceforge("models", "show", REPOSITORY).returncode == 2

    def test_the_doctor_finds_this_machine_fit(self, voiceforge: Run) -> None:
        done = voiceforge("doctor", settings={"VOICEFORGE_SERVER__PORT": "0"})
        assert done.returncode == 0, done.stdout
        assert "fail" not in {line.split()[0] for line in done.stdout.splitlines()}
        findings = json.loads(voiceforge("doctor", "--json", "--gpu").stdout)
        assert "moonshine" in {finding["name"] for finding in findings}
        assert any(finding["name"].startswith("gpu") for finding in findings)

    def test_the_settings_keep_their_secret(self, voiceforge: Run, tmp_path: Path) -> None:
        (tmp_path / "here" / "voiceforge.toml").write_text("[server]\nport = 8123\n")
        settings = {"VOICEFORGE_API_KEY": "very-secret-key"}
        done = voiceforge("config", "show", settings=settings)
        assert done.returncode == 0
        assert "very-secret-key" not in done.stdout + done.stderr
        shown = json.loads(voiceforge("config", "show", "--json", settings=settings).stdout)
        assert shown["api_key"] == {"value": "********", "source": "env VOICEFORGE_API_KEY"}
        assert shown["server.port"] == {"value": 8123, "source": "file voiceforge.toml"}

    def test_the_example_is_a_valid_settings_file(self, voiceforge: Run, tmp_path: Path) -> None:
        example = tmp_path / "example.toml"
        example.write_text(voiceforge("config", "example").stdout)
        assert voiceforge("config", "show", "--config", example).returncode == 0

    def test_a_bench_of_two_lines(self, voiceforge: Run, clips: dict[str, Path], tmp_path: Path) -> None:
        pytest.importorskip("jiwer")
        pytest.importorskip("whisper_normalizer")
        pytest.importorskip("matplotlib")
        text = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
        rows = [
            {"audio": str(clips["beckett"]), "text": text, "language": "en", "kind": "clean"},
            {"audio": "missing.wav", "text": "nothing", "kind": "missing"},
        ]
        manifest = tmp_path / "two.jsonl"
        manifest.write_text("\n".join(json.dumps(row) for row in rows))
        done = voiceforge(
            "bench", manifest, "--json", tmp_path / "report.json", "--plot", tmp_path / "report.png"
        )
        assert done.returncode == 0, done.stderr
        assert "WER" in done.stdout
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["models"][0]["by_kind"]["clean"]["wer"] < 0.2
        assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
