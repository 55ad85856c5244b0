"""What is transcribed, and where results go."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.cli.inputs import Recording, Unusable, find_recordings, is_url
from voiceforge.cli.outputs import output_paths, safe_name, write_whole
from voiceforge.cli.words import bytes_text, duration_text, plural, speed_text
from voiceforge.errors import VoiceForgeError


def named(*arguments: str) -> list[Recording]:
    return [Recording(name, Path(name).stem, Path(name)) for name in arguments]


def test_inputs_of_every_sort(recordings: Path) -> None:
    found = list(find_recordings(["-", "https://example.org/a%20b.mp3", "talks/notes.txt", "talks", "none"]))
    assert found == [
        Recording("stdin", "stdin", None),
        Recording("https://example.org/a%20b.mp3", "a b", "https://example.org/a%20b.mp3"),
        Recording("talks/notes.txt", "notes", Path("talks/notes.txt")),  # named: its content decides
        Recording("talks/a.wav", "a", Path("talks/a.wav"), PurePosixPath()),
        Recording("talks/b.wav", "b", Path("talks/b.wav"), PurePosixPath()),
        Recording("talks/sub/a.MP3", "a", Path("talks/sub/a.MP3"), PurePosixPath("sub")),
        Unusable("none", "no such file or folder"),
    ]


def test_a_url_without_a_name_is_called_after_its_host() -> None:
    assert [item.stem for item in find_recordings(["http://example.org"]) if isinstance(item, Recording)] == [
        "example.org"
    ]


@pytest.mark.parametrize(
    ("argument", "url"), [("ftp://x/y", True), ("HTTP://X", True), ("C:/a.wav", False), ("a:b.wav", False)]
)
def test_what_a_url_is(argument: str, url: bool) -> None:
    assert is_url(argument) is url


def test_equal_stems_keep_their_names_and_then_get_numbers(tmp_path: Path) -> None:
    paths = output_paths(named("x/a.wav", "y/a.wav", "a.mp3", "b.wav"), tmp_path, "txt")
    assert [path.name for path in paths] == ["a.wav.txt", "a.wav-2.txt", "a.mp3.txt", "b.txt"]


def test_case_makes_no_difference(tmp_path: Path) -> None:
    paths = output_paths(named("A.wav", "x/a.wav"), tmp_path, "txt")
    assert len({str(path).casefold() for path in paths}) == 2


def test_an_input_is_never_written_over(tmp_path: Path) -> None:
    source = tmp_path / "talk.json"
    (target,) = output_paths([Recording("talk.json", "talk", source)], tmp_path, "json")
    assert target.name == "talk.json.json"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=8)), max_size=12))
def test_no_two_outputs_are_the_same(places: list[tuple[str, str]]) -> None:
    items = [
        Recording(stem, stem, Path(folder) / (stem.replace("/", "_").replace("\0", "_") or "x"))
        for folder, stem in places
    ]
    paths = output_paths(items, Path("out"), "srt")
    assert len({str(path).casefold() for path in paths}) == len(items)
    assert all(path.parent == Path("out") for path in paths)


@given(st.text())
def test_names_are_safe(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert "/" not in safe
    assert not safe.startswith(".")
    assert safe.isprintable() or all(ord(char) >= 32 for char in safe)
    assert len(safe.encode("utf-8")) <= 200


def test_a_file_appears_whole_and_readable(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    write_whole(target, "grüße\r\n")
    assert target.read_bytes() == "grüße\r\n".encode()
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]
    other = tmp_path / "other"
    other.write_text("made as usual")
    assert target.stat().st_mode == other.stat().st_mode


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(VoiceForgeError, match="cannot be written"):
        write_whole(tmp_path / "taken", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_figures_for_people() -> None:
    assert [bytes_text(n) for n in (512, 1500, 43_943_830, 999_600, 1_530_571_735)] == [
        "512 B",
        "1.5 kB",
        "44 MB",
        "1.0 MB",
        "1.5 GB",
    ]
    assert [duration_text(s) for s in (1.23, 59.96, 200, 7500)] == [
        "1.2 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
    ]
    assert [speed_text(60, 2), speed_text(3, 2), speed_text(3, 0)] == ["30x", "1.5x", "–"]
    assert [plural(1, "file"), plural(2, "file")] == ["1 file", "2 files"]
