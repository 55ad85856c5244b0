"""The settings of the HTTP server: where it listens, with what certificate, and what it puts up with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ByteSize, Field, SecretStr, field_validator

from voiceforge.main.settings_values import Names, Networks, Section, http_address

ClientCertificates = Literal["required", "optional"]
TlsVersion = Literal["1.2", "1.3"]

_HOST_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]", re.ASCII)


def _origins(names: tuple[str, ...]) -> tuple[str, ...]:
    if names == ("*",):
        return names
    for name in names:
        if "*" in name or http_address(name) != name or name.count("/") != 2:
            raise ValueError("each should be such as https://app.example, without a path; or only *")
    return tuple(name.lower() for name in names)


def _host_names(names: tuple[str, ...]) -> tuple[str, ...]:
    lower = tuple(name.lower() for name in names)
    for name in lower:
        if name != "*" and not _HOST_NAME.fullmatch(name):
            raise ValueError("each should be a host name or address without a port, or *.example.org")
    return lower


class ServerSettings(Section):
    """The HTTP server."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65_535, description="Port to listen on; 0 lets the system choose."
    )
    insecure: bool = Field(
        default=False,
        description="Allow listening beyond this machine, and the production profile, without a key.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that answer HTTP. They share one process per model, so more of them help "
        "where answering itself is the limit, not recognition.",
    )
    grace_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Time that work in progress gets to finish when the server stops.",
    )
    max_upload_bytes: ByteSize = Field(
        default=ByteSize(2 * 1024**3), gt=0, description="Largest upload; bytes, or text such as `500MiB`."
    )
    max_body_bytes: ByteSize = Field(
        default=ByteSize(1024**2), ge=1024, description="Largest body of a request that is no upload."
    )
    max_header_bytes: ByteSize = Field(
        default=ByteSize(64 * 1024),
        ge=4096,
        le=1024**2,
        description="Most that the address and the headers of a request may take.",
    )
    header_timeout_s: float = Field(
        default=20.0, gt=0, le=600, description="A request whose headers take longer is given up."
    )
    body_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="So long an upload may bring nothing, a client take nothing of its answer, and a body "
        "that is no upload take as a whole.",
    )
    max_connections: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="Connections to each server process at once; more are told to come back.",
    )
    tls_certificate: Path | None = Field(
        default=None,
        examples=["/etc/voiceforge/tls/server.pem"],
        description="PEM file with the server's certificate and those that lead to its root; unset: no TLS. "
        "Changed files are taken up while the server runs.",
    )
    tls_key: Path | None = Field(
        default=None,
        examples=["/etc/voiceforge/tls/server.key"],
        description="PEM file with the key to it; unset: in the same file.",
    )
    tls_key_password: SecretStr | None = Field(
        default=None, examples=["a-long-random-text"], description="Opens the key, where it is encrypted."
    )
    tls_min_version: TlsVersion = Field(default="1.2", description="Oldest version of TLS that is spoken.")
    tls_client_ca: Path | None = Field(
        default=None,
        examples=["/etc/voiceforge/tls/clients.pem"],
        description="PEM file with the roots of clients' certificates; unset: clients are not asked for one.",
    )
    tls_client_certificates: ClientCertificates = Field(
        default="required",
        description="Whether a client without a certificate is let in, where `server.tls_client_ca` is set. "
        "A false one never is.",
    )
    cors_origins: Annotated[Names, AfterValidator(_origins)] = Field(
        default=(),
        description="Origins of web pages that may call from a browser, such as `https://app.example`, or "
        "`*`; empty: none but pages of this server.",
    )
    allowed_hosts: Annotated[Names, AfterValidator(_host_names)] = Field(
        default=(),
        description="Names in `Host` that are answered, such as `speech.example` or `*.example.org`; empty: "
        "all, but without a key only addresses and `localhost`.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Addresses and networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are "
        "believed; empty: nobody's.",
    )

    @field_validator("tls_certificate", "tls_key", "tls_client_ca")
    @classmethod
    def _expanded(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()
