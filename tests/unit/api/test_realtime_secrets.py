import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.api.openai_compat.realtime_secrets import PREFIX, ClientSecrets
from voiceforge.errors import InvalidRequest

SESSION = {"type": "transcription", "include": ["x"]}


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_secret_opens_the_session_it_was_made_for(clock):
    made = ClientSecrets("key", clock).make(SESSION, 600)
    assert made.value.startswith(PREFIX)
    assert made.expires_at == 1_000_600
    # another process of the same server
    assert ClientSecrets("key", clock).opened(made.value) == SESSION


def test_it_expires(clock):
    ours = ClientSecrets("key", clock)
    made = ours.make(SESSION, 10)
    clock.now += 9
    assert ours.opened(made.value) == SESSION
    clock.now += 2
    assert ours.opened(made.value) is None


def test_no_two_are_alike(clock):
    ours = ClientSecrets("key", clock)
    assert ours.make(SESSION, 10).value != ours.make(SESSION, 10).value


def test_another_servers_are_worth_nothing(clock):
    made = ClientSecrets("other", clock).make(SESSION, 600)
    assert ClientSecrets("key", clock).opened(made.value) is None
    assert ClientSecrets(None, clock).opened(made.value) is None


def test_a_session_too_long_for_a_header_is_refused(clock):
    import random

    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000))
    with pytest.raises(InvalidRequest):
        ClientSecrets("key", clock).make({"prompt": noise}, 600)


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_made_up_opens_anything(payload, signature):
    ours = ClientSecrets("key", Clock())
    assert ours.opened(payload) is None
    assert ours.opened(f"{PREFIX}{payload}.{signature}") is None


@given(st.integers(0, 200), st.characters(min_codepoint=33, max_codepoint=126))
def test_no_character_can_be_changed(at, character):
    ours = ClientSecrets("key", Clock())
    value = ours.make(SESSION, 600).value
    at %= len(value)
    changed = value[:at] + character + value[at + 1 :]
    # The last character of base64 holds bits that mean nothing, but they are compared all the same.
    assert (ours.opened(changed) == SESSION) == (changed == value)
