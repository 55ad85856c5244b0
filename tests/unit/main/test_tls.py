"""What is made of the files of TLS, and what is said of those that cannot be used."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from voiceforge.errors import ConfigurationError
from voiceforge.main.settings_loading import load_settings
from voiceforge.main.tls import Tls, TlsFiles, tls_files


@pytest.fixture
def issued() -> trustme.LeafCert:
    return trustme.CA().issue_cert("localhost")


@pytest.fixture
def files(tmp_path: Path, issued: trustme.LeafCert) -> TlsFiles:
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    return TlsFiles(certificate, key)


def test_one_file_may_hold_both(tmp_path: Path, issued: trustme.LeafCert) -> None:
    both = tmp_path / "both.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(both))
    context = TlsFiles(both).context()
    assert context.verify_mode is ssl.CERT_NONE
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def lock(files: TlsFiles, password: bytes) -> None:
    assert files.key is not None
    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
    )


def test_an_encrypted_key_is_opened_with_its_password_and_nobody_is_asked_for_it(files: TlsFiles) -> None:
    lock(files, b"open sesame")
    TlsFiles(files.certificate, files.key, "open sesame").context()
    for wrong in (None, "other words"):
        with pytest.raises(ConfigurationError, match="tls_key_password") as raised:
            TlsFiles(files.certificate, files.key, wrong).context()
        assert "other words" not in raised.value.message


def gone(files: TlsFiles) -> None:
    files.certificate.unlink()


def no_pem(files: TlsFiles) -> None:
    files.certificate.write_text("hello")


def of_another(files: TlsFiles) -> None:
    assert files.key is not None
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(files.key))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (gone, "server.tls_certificate: .* No such file"),
        (no_pem, "server.tls_certificate"),
        (of_another, "belong"),
    ],
)
def test_what_cannot_be_used_is_named(files: TlsFiles, harm: Callable[[TlsFiles], None], said: str) -> None:
    harm(files)
    with pytest.raises(ConfigurationError, match=said):
        files.context()


def test_a_root_of_clients_that_is_missing_is_named(files: TlsFiles, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tls_client_ca"):
        TlsFiles(files.certificate, files.key, client_ca=tmp_path / "none").context()


async def test_a_key_that_comes_before_its_certificate_is_waited_for(files: TlsFiles) -> None:
    tls = Tls(files, look_every_s=0.01)
    first = tls.context
    taken: asyncio.Queue[ssl.SSLContext] = asyncio.Queue()
    keeping = asyncio.create_task(tls.keep(taken.put))
    try:
        other = trustme.CA().issue_cert("localhost")
        assert files.key is not None
        other.private_key_pem.write_to_path(str(files.key))
        await asyncio.sleep(0.1)
        assert tls.context is first
        other.cert_chain_pems[0].write_to_path(str(files.certificate))
        async with asyncio.timeout(30):
            assert await taken.get() is not first
    finally:
        keeping.cancel()


def test_settings_become_files() -> None:
    assert tls_files(load_settings(environ={})) is None
    found = tls_files(
        load_settings(
            overrides={
                "server.tls_certificate": "~/server.pem",
                "server.tls_client_ca": "/ca.pem",
                "server.tls_client_certificates": "optional",
                "server.tls_min_version": "1.3",
            },
            environ={},
        )
    )
    assert found is not None
    assert found.certificate == Path.home() / "server.pem"
    assert (found.client_required, found.min_version) == (False, ssl.TLSVersion.TLSv1_3)


@pytest.mark.parametrize(
    ("name", "value"), [("server.tls_key", "/x"), ("server.tls_client_ca", "/x"), ("wyoming.tls", True)]
)
def test_parts_of_tls_without_a_certificate_are_a_mistake(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"server\.tls_certificate"):
        load_settings(overrides={name: value}, environ={})
