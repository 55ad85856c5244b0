"""Rules that span several settings."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from voiceforge.infra.blobs.address import parse_store_url
from voiceforge.main.settings import Settings
from voiceforge.main.settings_outside import StoreSettings

_STORES_THAT_KNOW: Mapping[str, tuple[str, ...]] = {
    "endpoint": ("s3", "gs", "az"),
    "region": ("s3",),
    "access_key_id": ("s3", "az"),
    "secret_access_key": ("s3", "az"),
    "encryption": ("s3",),
    "kms_key_id": ("s3",),
}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _store_conflicts(store: StoreSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    scheme = None if store.url is None else parse_store_url(store.url).scheme
    for name, schemes in _STORES_THAT_KNOW.items():
        if getattr(store, name) is not None and scheme not in schemes:
            yield (
                (f"store.{name}", "store.url"),
                f"store.{name} is for a store.url that begins with {' or '.join(f'{s}://' for s in schemes)}",
            )
    if (store.access_key_id is None) != (store.secret_access_key is None):
        yield (
            ("store.access_key_id", "store.secret_access_key"),
            "store.access_key_id and store.secret_access_key belong together: set both, or neither",
        )
    if store.endpoint is not None and store.endpoint.startswith("http://") and not store.allow_http:
        yield (
            ("store.endpoint", "store.allow_http"),
            "store.endpoint is without TLS: use https, or set store.allow_http = true",
        )
    if store.kms_key_id is not None and store.encryption != "aws:kms":
        yield (
            ("store.kms_key_id", "store.encryption"),
            'store.kms_key_id is for store.encryption = "aws:kms"',
        )


def _tls_conflicts(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    server = settings.server
    if server.tls_certificate is not None:
        return
    for name in ("tls_key", "tls_key_password", "tls_client_ca"):
        if getattr(server, name) is not None:
            yield (
                (f"server.{name}", "server.tls_certificate"),
                f"server.{name} is for TLS: set server.tls_certificate too",
            )
    if settings.wyoming.tls:
        yield (
            ("wyoming.tls", "server.tls_certificate"),
            "wyoming.tls needs a certificate: set server.tls_certificate",
        )


def is_protected(settings: Settings) -> bool:
    """Whether whoever calls must be known."""
    return settings.api_key is not None or settings.auth.required


def _people_conflicts(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    auth, oidc = settings.auth, settings.oidc
    if auth.letter_url is not None and auth.letter_command:
        yield (
            ("auth.letter_url", "auth.letter_command"),
            "letters go to auth.letter_url or to auth.letter_command: set one of them",
        )
    if auth.letter_secret is not None and auth.letter_url is None:
        yield (
            ("auth.letter_secret", "auth.letter_url"),
            "auth.letter_secret signs what is posted: set auth.letter_url too",
        )
    needed = ("issuer", "client_id", "redirect_url")
    missing = [name for name in needed if getattr(oidc, name) is None]
    if missing and len(missing) < len(needed):
        yield (
            tuple(f"oidc.{name}" for name in needed),
            f"single sign-on needs {' and '.join(f'oidc.{name}' for name in missing)} too",
        )
    for claim, table in (("tenant_claim", "tenants"), ("role_claim", "roles")):
        if getattr(oidc, table) and getattr(oidc, claim) is None:
            yield (
                (f"oidc.{claim}", f"oidc.{table}"),
                f"oidc.{table} are of the values of a claim: set oidc.{claim} too",
            )


def conflicts(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rules that span several settings: the dotted names involved, and what is wrong."""
    unprotected = not is_protected(settings) and not settings.server.insecure
    if unprotected and not _is_loopback(settings.server.host):
        yield (
            ("server.host", "api_key", "auth.required", "server.insecure"),
            f"listening on {settings.server.host} lets others in: set api_key or auth.required = true, or "
            "server.insecure = true",
        )
    if unprotected and settings.profile == "production":
        yield (
            ("profile", "api_key", "auth.required", "server.insecure"),
            "the production profile needs api_key or auth.required = true, or server.insecure = true",
        )
    wyoming = settings.wyoming
    if wyoming.enabled and not (_is_loopback(wyoming.host) or wyoming.allow or wyoming.insecure):
        yield (
            ("wyoming.host", "wyoming.allow", "wyoming.insecure"),
            f"Wyoming on {wyoming.host} lets others in, and knows no keys: set wyoming.allow, or "
            "wyoming.insecure = true",
        )
    if wyoming.enabled and not settings.features.streams:
        yield (
            ("wyoming.enabled", "features.streams"),
            "Wyoming is live streams: set features.streams = true, or wyoming.enabled = false",
        )
    yield from _tls_conflicts(settings)
    yield from _people_conflicts(settings)
    if settings.server.workers > 1 and settings.engine.isolation == "thread":
        yield (
            ("server.workers", "engine.isolation"),
            'several workers would each load the models: set engine.isolation = "process"',
        )
    yield from _store_conflicts(settings.store)
    for name in ("audio", "subtitles"):
        section = getattr(settings, name)
        if section.min_duration_s >= section.max_duration_s:
            yield (
                (f"{name}.min_duration_s", f"{name}.max_duration_s"),
                f"{name}.min_duration_s ({section.min_duration_s}) should be below "
                f"{name}.max_duration_s ({section.max_duration_s})",
            )
    if settings.jobs.heartbeat_s * 2 > settings.jobs.lease_s:
        yield (
            ("jobs.heartbeat_s", "jobs.lease_s"),
            f"jobs.heartbeat_s ({settings.jobs.heartbeat_s}) should be at most half of jobs.lease_s "
            f"({settings.jobs.lease_s})",
        )
    aliases = settings.models.aliases
    for alias, target in aliases.items():
        if target in aliases:
            yield ("models.aliases",), f"alias {alias!r} points to {target!r}, which is itself an alias"
