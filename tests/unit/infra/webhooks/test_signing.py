"""Signatures that the library of Standard Webhooks accepts, and nothing else as a secret."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from voiceforge.infra.webhooks.signing import key_of, new_secret, signed_headers

secrets = st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode())
bodies = st.text().map(str.encode)
ids = st.from_regex(r"evt_[0-9a-f]{32}", fullmatch=True)


@given(ids, bodies, st.lists(secrets, min_size=1, max_size=5))
def test_verifies_by_each_of_the_secrets(event_id: str, body: bytes, signers: list[str]) -> None:
    headers = signed_headers(event_id, int(time.time()), body, signers)
    for secret in signers:
        Webhook(secret).verify(body, headers, json_parse=False)


@given(bodies, secrets, secrets)
def test_verifies_by_no_other_and_for_no_other_body(body: bytes, secret: str, other: str) -> None:
    headers = signed_headers("evt_1", int(time.time()), body, [secret])
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers, json_parse=False)
    if other != secret:
        with pytest.raises(WebhookVerificationError):
            Webhook(other).verify(body, headers, json_parse=False)


def test_the_example_of_the_standard() -> None:
    """From the specification's reference libraries."""
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_are_new_each_time_and_of_256_bits() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(key_of(secret)) for secret in made} == {32}


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec", "whsec_?", "whsec_ä", "x" * 44, "whsec_" + "A" * 41, "WHSEC_" + "A" * 44]
)
def test_what_is_no_secret_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_ and the base64"):
        key_of(text)


@pytest.mark.parametrize("size", [0, 23, 65])
def test_keys_of_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="24 to 64"):
        key_of("whsec_" + base64.b64encode(bytes(size)).decode())
