from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from voiceforge.errors import ConfigurationError, EngineFailed, UnreadableAudio, UnsupportedOption
from voiceforge.services.recordings import UrlSource
from voiceforge.services.transcriptions import TranscribeRequest
from voiceforge.speech.formats import FORMATS
from voiceforge.speech.options import RawFormat
from voiceforge.speech.transcript import (
    Coverage,
    Finished,
    Gap,
    TranscribeEvent,
    TranscriptWarning,
)
from voiceforge.testing.scripted_cli import Cli
from voiceforge.testing.scripted_services import Script, fails, says, spoken


def by_content(**scripts: Script) -> Script:
    """Chooses the script by the stem of the recording."""

    async def script(request: TranscribeRequest) -> AsyncGenerator[TranscribeEvent, None]:
        assert isinstance(request.source, Path)
        async for event in scripts[request.source.stem](request):
            yield event

    return script


def test_the_text_goes_to_stdout_and_nothing_to_stderr(cli: Cli, recordings: Path) -> None:
    result = cli.run("transcribe", "talks/a.wav")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello there. This is a test.\n", "")
    assert cli.closed == 1


def test_every_option_reaches_the_service(cli: Cli, recordings: Path) -> None:
    arguments = """
        transcribe talks/a.wav --model org/name --language en --task translate --words --channels split
        --prompt Context --keyterm Kubernetes --keyterm etcd --temperature 0.2 --beam-size 3
        --vad-threshold 0.7 --no-normalize --raw mulaw:8000:2 --device cpu --compute-type int8 --threads 3
        --config my.toml
    """
    result = cli.run(*arguments.split())
    assert result.exit_code == 0
    (request,) = cli.transcriptions.requests
    options = request.options
    assert request.model == "org/name"
    assert (options.language, options.task, options.words, options.channels) == (
        "en",
        "translate",
        True,
        "split",
    )
    assert (options.prompt, options.keyterms) == ("Context", ("Kubernetes", "etcd"))
    assert (options.temperature, options.beam_size, options.normalize_peak) == (0.2, 3, False)
    assert options.vad.threshold == 0.7
    assert options.raw == RawFormat("mulaw", 8000, 2)
    assert options.limits.max_duration_s == 60.0  # the settings' own stay
    (choices,) = cli.choices
    assert choices.config == Path("my.toml")
    assert choices.overrides == {
        "engine.device": "cpu",
        "engine.compute_type": "int8",
        "engine.threads": 3,
    }


def test_a_folder_is_searched_in_order_and_each_text_has_a_header(cli: Cli, recordings: Path) -> None:
    result = cli.run("transcribe", "talks")
    headers = [line for line in result.stdout.splitlines() if line.startswith("==>")]
    assert headers == ["==> talks/a.wav <==", "==> talks/b.wav <==", "==> talks/sub/a.MP3 <=="]
    assert result.stdout.count("Hello there.") == 3
    assert not result.stdout.endswith("\n\n")


def test_quiet_leaves_the_headers_out(cli: Cli, recordings: Path) -> None:
    result = cli.run("transcribe", "talks/a.wav", "talks/b.wav", "-q")
    assert result.stdout == "Hello there. This is a test.\n" * 2


def test_results_come_in_the_order_of_the_inputs(cli: Cli, recordings: Path) -> None:
    """The first ends only after the second has."""
    second_done = asyncio.Event()

    async def first(request: TranscribeRequest) -> AsyncGenerator[TranscribeEvent, None]:
        await second_done.wait()
        yield Finished(spoken("first"))

    async def second(request: TranscribeRequest) -> AsyncGenerator[TranscribeEvent, None]:
        second_done.set()
        yield Finished(spoken("second"))

    cli.transcriptions.script = by_content(a=first, b=second)
    result = cli.run("transcribe", "talks/a.wav", "talks/b.wav", "-q")
    assert result.stdout == "first\nsecond\n"


@pytest.mark.parametrize("fmt", ["json", "verbose_json"])
def test_several_as_json_are_one_line_each(cli: Cli, recordings: Path, fmt: str) -> None:
    result = cli.run("transcribe", "talks/a.wav", "talks/b.wav", "--format", fmt)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["file"] for line in lines] == ["talks/a.wav", "talks/b.wav"]
    assert {line["text"] for line in lines} == {"Hello there. This is a test."}


def test_several_as_subtitles_need_files(cli: Cli, recordings: Path) -> None:
    result = cli.run("transcribe", "talks/a.wav", "talks/b.wav", "--format", "srt")
    assert result.exit_code == 2
    assert result.stderr == "voiceforge: several inputs as srt need --output-dir\n"
    assert cli.transcriptions.requests == []


def test_files_go_beside_a_summary_and_never_over_each_other(cli: Cli, recordings: Path) -> None:
    (recordings / "talks/a.flac").write_bytes(b"same stem")
    result = cli.run("transcribe", "talks", "--output-dir", "out", "--format", "json")
    written = sorted(str(path.relative_to(recordings)) for path in recordings.glob("out/**/*.*"))
    assert written == ["out/a.flac.json", "out/a.wav.json", "out/b.json", "out/sub/a.json"]
    assert json.loads((recordings / "out/b.json").read_text())["text"] == "Hello there. This is a test."
    summary = result.stdout.splitlines()
    assert summary[0].startswith("talks/a.flac -> out/a.flac.json  2.0 s")
    assert summary[-1].startswith("4 files transcribed: 8.0 s of audio in ")


def test_what_is_done_can_be_skipped(cli: Cli, recordings: Path) -> None:
    (recordings / "a.txt").write_text("kept")
    result = cli.run("transcribe", "talks/a.wav", "talks/b.wav", "--output-dir", ".", "--skip-existing")
    assert result.stdout.splitlines()[-1].startswith("1 file transcribed, 1 skipped")
    assert (recordings / "a.txt").read_text() == "kept"
    assert len(cli.transcriptions.requests) == 1


def test_one_bad_file_costs_only_itself(cli: Cli, recordings: Path) -> None:
    cli.transcriptions.script = by_content(a=fails(UnreadableAudio("this is a poem")), b=says("Fine."))
    result = cli.run("transcribe", "talks/a.wav", "talks/b.wav", "-q")
    assert (result.exit_code, result.stdout) == (1, "Fine.\n")
    assert result.stderr == "voiceforge: talks/a.wav: this is a poem\n"


def test_missing_inputs_are_named_and_counted(cli: Cli, recordings: Path) -> None:
    (recordings / "empty").mkdir()
    result = cli.run("transcribe", "nothing.wav", "empty", "talks/b.wav", "-q")
    assert (result.exit_code, result.stdout) == (1, "Hello there. This is a test.\n")
    assert result.stderr.splitlines() == [
        "voiceforge: nothing.wav: no such file or folder",
        "voiceforge: empty: no audio or video files inside",
    ]


def test_without_a_usable_input_no_model_is_loaded(cli: Cli, recordings: Path) -> None:
    assert cli.run("transcribe", "nothing.wav").exit_code == 1
    assert cli.transcriptions.loaded == []


def test_a_model_that_does_not_load_is_one_error(cli: Cli, recordings: Path) -> None:
    cli.transcriptions.load_error = EngineFailed("the weights are broken")
    result = cli.run("transcribe", "talks")
    assert (result.exit_code, result.stderr) == (1, "voiceforge: the weights are broken\n")
    assert cli.transcriptions.requests == []


def test_urls_are_passed_on(cli: Cli, recordings: Path) -> None:
    url = "https://example.org/talks/my%20talk.mp3?x=1"

    async def script(request: TranscribeRequest) -> AsyncGenerator[TranscribeEvent, None]:
        assert request.source == UrlSource(url)
        yield Finished(spoken("from afar"))

    cli.transcriptions.script = script
    result = cli.run("transcribe", url, "--output-dir", "out")
    assert result.exit_code == 0, result.stderr
    assert (recordings / "out/my talk.txt").read_text() == "from afar\n"


def test_doubts_are_told_beside_text_and_inside_json(cli: Cli, recordings: Path) -> None:
    doubtful = replace(
        spoken("So."),
        warnings=(TranscriptWarning("clipping", "the recording is clipped"),),
        coverage=Coverage(5.0, 3.0, (Gap(1.0, 3.04, "no_text"),)),
    )

    async def script(request: TranscribeRequest) -> AsyncGenerator[TranscribeEvent, None]:
        yield Finished(doubtful)

    cli.transcriptions.script = script
    assert cli.run("transcribe", "talks/a.wav").stderr.splitlines() == [
        "voiceforge: talks/a.wav: warning: the recording is clipped",
        "voiceforge: talks/a.wav: warning: speech without text at 1.0–3.0 s",
    ]
    assert cli.run("transcribe", "talks/a.wav", "-q").stderr == ""
    as_json = cli.run("transcribe", "talks/a.wav", "--format", "json")
    assert as_json.stderr == ""
    assert json.loads(as_json.stdout)["warnings"][0]["code"] == "clipping"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Missing argument"),
        (("a.wav", "--task", "sing"), "'sing' is not one of"),
        (("a.wav", "--raw", "mp3:8000"), "unknown encoding 'mp3'"),
        (("a.wav", "--raw", "s16le:eight"), "does not look like s16le:16000:1"),
        (("a.wav", "--raw", "s16le:1"), "outside 4000 to 384000 Hz"),
        (("a.wav", "--beam-size", "0"), "0 is not in the range"),
        (("a.wav", "--vad-threshold", "1"), "1.0 is not in the range"),
        (("a.wav", "--skip-existing"), "--skip-existing needs --output-dir"),
        (("-", "-"), "only once"),
        (("a.wav", "--format", "docx"), "choose from txt, json, verbose_json, srt, vtt, tsv"),
        (("a.wav", "--model", "nope"), "there is no model 'nope'; installed: fake"),
    ],
)
def test_wrong_usage_is_one_line_and_2(
    cli: Cli, recordings: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    result = cli.run("transcribe", *arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert re.fullmatch(r"voiceforge: [^\n]+\n", result.stderr)


def test_what_a_model_cannot_do_is_refused_before_anything_is_tried(cli: Cli, recordings: Path) -> None:
    cli.transcriptions.refusal = UnsupportedOption(
        "this model does not recognise language 'xx'", field="language", choices=("en", "de")
    )
    result = cli.run("transcribe", "talks", "--language", "xx")
    assert result.exit_code == 2
    assert result.stderr == "voiceforge: this model does not recognise language 'xx'; choose from en, de\n"


def test_every_problem_of_the_settings_has_its_line(cli: Cli) -> None:
    cli.workshop_error = ConfigurationError(["server.port: too large", "modell: unknown setting"])
    result = cli.run("transcribe", "a.wav")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "voiceforge: server.port: too large",
        "voiceforge: modell: unknown setting",
    ]


def test_a_defect_is_one_line_and_debug_tells_more(cli: Cli, recordings: Path) -> None:
    cli.workshop_error = ZeroDivisionError("oh")
    result = cli.run("transcribe", "a.wav")
    assert result.exit_code == 1
    assert result.stderr == (
        "voiceforge: internal error (ZeroDivisionError: oh); run with --debug for the traceback\n"
    )
    for arguments in (("--debug", "transcribe", "a.wav"), ("transcribe", "a.wav", "--debug")):
        assert "Traceback (most recent call last)" in cli.run(*arguments).stderr


def test_a_defect_in_one_file_costs_only_itself(cli: Cli, recordings: Path) -> None:
    cli.transcriptions.script = by_content(a=fails(ZeroDivisionError("oh")), b=says("Fine."))
    result = cli.run("transcribe", "talks/a.wav", "talks/b.wav", "-q")
    assert (result.exit_code, result.stdout) == (1, "Fine.\n")
    assert "talks/a.wav: internal error (ZeroDivisionError: oh)" in result.stderr


def test_the_help_names_every_format(cli: Cli) -> None:
    text = " ".join(cli.run("transcribe", "--help").stdout.split())
    assert ", ".join([*FORMATS][:-1]) + f" or {[*FORMATS][-1]}" in text


def test_a_file_that_cannot_be_written_is_that_input_s_failure(cli: Cli, recordings: Path) -> None:
    (recordings / "out").write_text("a file where the folder should be")
    result = cli.run("transcribe", "talks/a.wav", "--output-dir", "out/below")
    assert result.exit_code == 1
    assert "talks/a.wav: " in result.stderr
    assert "cannot be written" in result.stderr
