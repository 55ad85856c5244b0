"""Reading manifests: what they may hold, and what is said about lines that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from voiceforge.errors import InvalidRequest
from voiceforge.speech.options import RawFormat
from voiceforge.speech.training.manifest import read_manifest


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_entries_keep_their_order_and_find_their_audio_beside_the_manifest(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"audio": "audio/b.wav", "text": "hello\u2028there", "language": "en", "duration": 2.5, '
        '"kind": "noisy", "speakers": 1, "licence": "CC0"}',
        "",
        '{"audio": "a.raw", "text": null, "language": null, '
        '"raw": {"encoding": "mulaw", "rate": 8000, "channels": 1}}',
    )
    first, second = read_manifest(path)
    assert (first.name, first.audio) == ("audio/b.wav", tmp_path / "audio" / "b.wav")
    assert (first.text, first.language, first.duration, first.kind) == (
        "hello\u2028there",
        "en",
        2.5,
        "noisy",
    )
    assert first.raw is None
    assert (second.text, second.language, second.duration, second.kind) == (None, None, None, "speech")
    assert second.raw == RawFormat("mulaw", 8000, 1)


def test_nothing_said_is_not_the_same_as_not_known(tmp_path: Path) -> None:
    path = written(tmp_path, '{"audio": "a.wav", "text": ""}', '{"audio": "b.wav"}')
    assert [entry.text for entry in read_manifest(path)] == ["", None]


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "a.wav"}\r\n', encoding="utf-8-sig")
    assert [entry.name for entry in read_manifest(path)] == ["a.wav"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "is not a JSON object"),
        ("{}", "has no `audio`"),
        ('{"audio": ""}', "has no `audio`"),
        ('{"audio": 7}', "`audio` of the wrong type"),
        ('{"audio": "a", "text": ["b"]}', "`text` of the wrong type"),
        ('{"audio": "a", "duration": "3"}', "`duration` of the wrong type"),
        ('{"audio": "a", "duration": true}', "`duration` of the wrong type"),
        ('{"audio": "a", "duration": -1}', "`duration` below 0"),
        ('{"audio": "a", "duration": NaN}', "`duration` below 0 or without end"),
        ('{"audio": "a", "raw": "s16le"}', "`raw` of the wrong type"),
        ('{"audio": "a", "raw": {"rate": 8000}}', "`raw` that cannot be: unknown raw encoding"),
        ('{"audio": "a", "raw": {"encoding": ["s16le"]}}', "`raw` that cannot be: unknown raw encoding"),
        ('{"audio": "a", "raw": {"encoding": "s16le", "rate": "8k"}}', "`rate` of the wrong type"),
        ('{"audio": "a", "raw": {"encoding": "s16le", "rate": 1}}', "`raw` that cannot be: sample rate"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(tmp_path: Path, line: str, complaint: str) -> None:
    path = written(tmp_path, '{"audio": "fine.wav"}', "", line)
    with pytest.raises(InvalidRequest) as refused:
        read_manifest(path)
    assert "line 3 " in refused.value.message
    assert complaint in refused.value.message
    assert refused.value.field == "manifest"


def test_a_manifest_that_is_missing_empty_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(InvalidRequest, match="names no recordings"):
        read_manifest(written(tmp_path, "", " "))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        read_manifest(tmp_path / "bytes")
