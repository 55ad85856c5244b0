"""What the settings of the server become for the HTTP side."""

from __future__ import annotations

from typing import Any

import pytest

from voiceforge.api.http.config import HttpConfig
from voiceforge.errors import ConfigurationError
from voiceforge.main.http_server import http_config
from voiceforge.main.settings_loading import load_settings


def made(**overrides: Any) -> HttpConfig:
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return http_config(load_settings(overrides=named, environ={}), "1.2.3")


def test_without_a_key_only_names_that_no_page_can_point_here_are_answered() -> None:
    assert made().allowed_hosts == ("localhost", "*.localhost")
    assert made().any_address


@pytest.mark.parametrize("protected", [{"api_key": "a-key"}, {"server__insecure": True}])
def test_where_somebody_checks_callers_any_name_is_answered(protected: dict[str, Any]) -> None:
    config = made(**protected)
    assert config.allowed_hosts is None
    assert not config.any_address


def test_names_that_are_listed_are_all_there_are() -> None:
    config = made(server__allowed_hosts="Speech.example,*.example.org")
    assert config.allowed_hosts == ("speech.example", "*.example.org")
    assert not config.any_address


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server__cors_origins", "app.example"),
        ("server__cors_origins", "https://app.example/"),
        ("server__cors_origins", "https://app.example/path"),
        ("server__cors_origins", "https://*.example"),
        ("server__cors_origins", "*,https://app.example"),
        ("server__allowed_hosts", "https://speech.example"),
        ("server__allowed_hosts", "speech.example:8000"),
        ("server__allowed_hosts", "speech.*"),
        ("server__trusted_proxies", "proxy.example"),
        ("server__trusted_proxies", "*"),
    ],
)
def test_lists_that_would_let_in_another_than_was_meant_are_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name.replace("__", "[._]")):
        made(**{name: value})
