"""The section `store`, and the store that opens from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from voiceforge.errors import ConfigurationError
from voiceforge.infra.blobs.local_disk import LocalDiskBlobs
from voiceforge.infra.blobs.object_store import ObjectStoreBlobs
from voiceforge.main.blob_store import open_blobs
from voiceforge.main.settings import Settings
from voiceforge.main.settings_loading import load_settings, load_with_origins
from voiceforge.main.settings_text import MASK, describe

S3 = {"VOICEFORGE_STORE__URL": "s3://recordings/voiceforge"}
KEYS = {"VOICEFORGE_STORE__ACCESS_KEY_ID": "hush-id", "VOICEFORGE_STORE__SECRET_ACCESS_KEY": "hush-secret"}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems_of(**store: str) -> list[str]:
    environ = {f"VOICEFORGE_STORE__{name.upper()}": value for name, value in store.items()}
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ=environ)
    return list(caught.value.problems)


async def test_nothing_given_is_a_folder_in_the_data_dir(tmp_path: Path) -> None:
    blobs = open_blobs(Settings(data_dir=tmp_path))
    assert isinstance(blobs, LocalDiskBlobs)
    await blobs.put("a/b", b"x")
    assert (tmp_path / "blobs" / "a" / "b").read_bytes() == b"x"


async def test_a_url_opens_an_object_store_as_the_settings_say() -> None:
    settings = load_settings(environ={**S3, **KEYS, "VOICEFORGE_STORE__ENDPOINT": "https://store.example/"})
    blobs = open_blobs(settings)
    assert isinstance(blobs, ObjectStoreBlobs)
    url = await blobs.download_url("a/b", expires_s=60)
    assert url is not None
    assert url.startswith("https://store.example/recordings/voiceforge/a/b?")
    assert "hush-id" in url
    assert "hush-secret" not in url + repr(settings) + repr(vars(blobs))


@pytest.mark.parametrize(
    "url", ["recordings", "file:///srv", "https://a.example/b", "s3://", "s3://B/x", "s3://key:secret@bucket"]
)
def test_what_is_no_address_of_a_store_is_refused(url: str) -> None:
    (problem,) = problems_of(url=url)
    assert problem.startswith("VOICEFORGE_STORE__URL: should be ")


def test_a_prefix_has_the_letters_of_keys() -> None:
    for prefix in ("a b", "../a", "a//b", "x" * 300):
        (problem,) = problems_of(url=f"s3://bucket/{prefix}")
        assert "prefix" in problem


@pytest.mark.parametrize(
    ("store", "starts"),
    [
        (
            {"endpoint": "https://a.example"},
            ["store.endpoint is for a store.url that begins with s3:// or gs://"],
        ),
        (
            {"url": "gs://bucket", "region": "x", "access_key_id": "a", "secret_access_key": "b"},
            ["store.region is", "store.access_key_id is", "store.secret_access_key is"],
        ),
        ({"url": "az://container", "encryption": "AES256"}, ["store.encryption is for a store.url"]),
        ({"url": "s3://bucket", "access_key_id": "a"}, ["store.access_key_id and store.secret_access_key"]),
        ({"url": "s3://bucket", "endpoint": "http://10.0.0.5:9000"}, ["store.endpoint is without TLS"]),
        ({"url": "s3://bucket", "encryption": "AES256", "kms_key_id": "k"}, ["store.kms_key_id is for"]),
        (
            {"url": "s3://bucket", "endpoint": "store.example", "timeout_s": "0", "encryption": "rot13"},
            [
                "VOICEFORGE_STORE__ENCRYPTION: should be 'AES256' or 'aws:kms'",
                "VOICEFORGE_STORE__ENDPOINT: should be an http or https address",
                "VOICEFORGE_STORE__TIMEOUT_S: ",
            ],
        ),
    ],
)
def test_what_cannot_go_together_is_listed_all_at_once(store: dict[str, str], starts: list[str]) -> None:
    problems = problems_of(**store)
    for start in starts:
        assert any(problem.startswith(start) for problem in problems), (start, problems)
    assert len(problems) == len(starts)


def test_an_endpoint_without_tls_has_to_be_meant() -> None:
    environ = {
        **S3,
        "VOICEFORGE_STORE__ENDPOINT": "http://10.0.0.5:9000",
        "VOICEFORGE_STORE__ALLOW_HTTP": "true",
    }
    assert load_settings(environ=environ).store.endpoint == "http://10.0.0.5:9000"


def test_keys_are_masked_wherever_settings_are_shown() -> None:
    rows = {row.name: row.value for row in describe(load_with_origins(environ={**S3, **KEYS}))}
    assert rows["store.access_key_id"] == rows["store.secret_access_key"] == MASK


def test_without_the_library_only_an_object_store_asks_for_it() -> None:
    """In a process where it cannot be imported."""
    program = """
import sys
sys.modules["obstore"] = None
from pathlib import Path
from voiceforge.errors import DependencyMissing
from voiceforge.main.blob_store import open_blobs
from voiceforge.main.settings import Settings
print(type(open_blobs(Settings(data_dir=Path("data")))).__name__)
try:
    open_blobs(Settings(data_dir=Path("data"), store={"url": "s3://bucket"}))
except DependencyMissing as error:
    print(error.message)
"""
    said = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env={**os.environ}
    ).stdout.splitlines()
    assert said[0] == "LocalDiskBlobs"
    assert said[1].endswith("pip install 'voiceforge[stores]'")
