"""Short-lived tokens: what they say, when they end, and that nobody else can make one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.errors import ExpiredCredential, InvalidRequest, MalformedCredential, PermissionDenied
from voiceforge.services.access import OWNER, Caller, Role, Scope
from voiceforge.services.short_tokens import ANY_DOOR, REALTIME, ParentKind, ShortTokens

SESSION = {"type": "transcription", "include": ["x"]}
SECRET = b"s" * 32
VIEWER = Caller("acme", Role.VIEWER, frozenset({Scope.READ}), user_id="usr_1", key_id="key_1")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ours(clock):
    return ShortTokens(SECRET, "key", clock)


def test_a_client_secret_opens_the_session_it_was_made_for(ours, clock):
    made = ours.make(OWNER, 600, prefix=REALTIME, data=SESSION)
    assert made.value.startswith("ek_")
    assert made.expires_at == 1_000_600
    # another process of the same server
    assert ShortTokens(SECRET, "key", clock).realtime_session(made.value) == SESSION


def test_a_token_names_what_it_was_made_with(ours):
    by_key = ours.opened(ours.make(VIEWER, 60, scopes=[Scope.READ]).value)
    assert (by_key.kind, by_key.parent, by_key.scopes) == (ParentKind.KEY, "key_1", {Scope.READ})
    person = Caller("acme", Role.MEMBER, frozenset(Scope), user_id="usr_1")
    assert ours.opened(ours.make(person, 60).value).parent == "usr_1"
    owners = ours.opened(ours.make(OWNER, 60).value)
    assert (owners.kind, owners.parent) == (ParentKind.OWNER, ours.owner)


def test_an_owners_token_ends_with_the_configured_key(ours, clock):
    assert ShortTokens(SECRET, "another", clock).owner != ours.owner


def test_it_expires(ours, clock):
    made = ours.make(OWNER, 10)
    clock.now += 9
    assert ours.opened(made.value).expires_at == made.expires_at
    clock.now += 2
    with pytest.raises(ExpiredCredential):
        ours.opened(made.value)
    assert ours.realtime_session(made.value) is None


def test_it_ends_no_later_than_what_its_maker_came_with(ours, clock):
    brief = Caller("acme", Role.MEMBER, frozenset(Scope), user_id="u", until=clock.now + 30)
    assert ours.make(brief, 3600).expires_at == 1_000_030


def test_it_lends_no_scope_that_its_maker_lacks(ours):
    with pytest.raises(PermissionDenied):
        ours.make(VIEWER, 60)


@pytest.mark.parametrize("scope", [Scope.KEYS, Scope.WEBHOOKS, Scope.USERS])
def test_it_lends_nothing_by_which_something_lasting_can_be_made(ours, scope):
    with pytest.raises(InvalidRequest):
        ours.make(OWNER, 60, scopes=[scope])


def test_no_two_are_alike(ours):
    assert ours.make(OWNER, 10).value != ours.make(OWNER, 10).value


def test_another_servers_are_worth_nothing(ours, clock):
    made = ShortTokens(b"o" * 32, "key", clock).make(OWNER, 600)
    with pytest.raises(MalformedCredential):
        ours.opened(made.value)


def test_one_for_realtime_sessions_is_none_for_all_doors(ours):
    lent = ours.make(OWNER, 600, prefix=REALTIME).value
    with pytest.raises(MalformedCredential):
        ours.opened(ANY_DOOR + lent.removeprefix(REALTIME))


def test_a_session_too_long_for_a_header_is_refused(ours):
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000))
    with pytest.raises(InvalidRequest):
        ours.make(OWNER, 600, prefix=REALTIME, data={"prompt": noise})


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_made_up_opens_anything(payload, signature):
    ours = ShortTokens(SECRET, "key", Clock())
    for text in (payload, f"{ANY_DOOR}{payload}.{signature}", f"{REALTIME}{payload}.{signature}"):
        with pytest.raises(MalformedCredential):
            ours.opened(text)


@given(st.integers(0, 200), st.characters(min_codepoint=33, max_codepoint=126))
def test_no_character_can_be_changed(at, character):
    ours = ShortTokens(SECRET, "key", Clock())
    value = ours.make(OWNER, 600, prefix=REALTIME, data=SESSION).value
    at %= len(value)
    changed = value[:at] + character + value[at + 1 :]
    # The last character of base64 holds bits that mean nothing, but they are compared all the same.
    assert (ours.realtime_session(changed) == SESSION) == (changed == value)
