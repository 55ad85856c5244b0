"""People register, log in and go on, on both databases; and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.errors import (
    Conflict,
    ExpiredCredential,
    InvalidRequest,
    MalformedCredential,
    NotFound,
    PermissionDenied,
    RateLimited,
    RevokedCredential,
    VoiceForgeError,
    WeakPassword,
    WrongPassword,
)
from voiceforge.infra.credentials.jwt import PrivateKey, PublicKey, TokenRules, key_id
from voiceforge.infra.credentials.password_hashes import PasswordHashes
from voiceforge.infra.db import users
from voiceforge.infra.db.database import Database
from voiceforge.main.people import build_people
from voiceforge.main.settings import Settings
from voiceforge.main.settings_loading import load_settings
from voiceforge.services.access import OWNER, Role, Scope, trusted
from voiceforge.services.accounts import Registrant
from voiceforge.services.old_sessions import OldSessions
from voiceforge.services.passwords import check_password
from voiceforge.services.people import People
from voiceforge.services.sign_ins import RETRY_S, Origin, Tokens
from voiceforge.testing.job_house import TestClock
from voiceforge.testing.webhook_receiver import WebhookReceiver, webhook_receiver

PASSWORD = "a rather long secret"
ANN = "ann@example.org"
HERE = Origin("192.0.2.1", "a test")


@dataclass
class Room:
    people: People
    clock: TestClock
    receiver: WebhookReceiver

    async def letter(self, number: int = 1) -> dict[str, Any]:
        message = (await self.receiver.arrived(number))[-1]
        letter: dict[str, Any] = json.loads(message.body)
        return letter

    async def registered(self, email: str = ANN, number: int = 1) -> str:
        await self.people.accounts.register(Registrant(email, PASSWORD, "Somebody"), HERE)
        return (await self.people.accounts.verify((await self.letter(number))["token"], HERE)).id

    async def logged_in(self, email: str = ANN) -> Tokens:
        return await self.people.accounts.log_in(email, PASSWORD, HERE)


def quick_hashes() -> PasswordHashes:
    return PasswordHashes(memory_kib=64)


def settings_for(folder: Path, **auth: object) -> Settings:
    return load_settings(
        environ={}, overrides={"data_dir": str(folder), **{f"auth.{k}": v for k, v in auth.items()}}
    )


@pytest_asyncio.fixture
async def room(database: Database, tmp_path: Path) -> AsyncIterator[Room]:
    async with webhook_receiver() as receiver:
        clock = TestClock()
        settings = settings_for(tmp_path, registration="open", letter_url=receiver.url)
        people = build_people(settings, database, hashes=quick_hashes, clock=clock)
        yield Room(people, clock, receiver)
        await people.close()


async def test_who_registers_owns_a_tenant_once_the_address_is_confirmed(room: Room) -> None:
    await room.people.accounts.register(Registrant(ANN, PASSWORD, "Ann", "Ann & Co"), HERE)
    letter = await room.letter()
    assert (letter["kind"], letter["to"]) == ("verify", ANN)
    with pytest.raises(WrongPassword):
        await room.logged_in()
    await room.people.accounts.verify(letter["token"], HERE)
    with pytest.raises(InvalidRequest):
        await room.people.accounts.verify(letter["token"], HERE)
    tokens = await room.logged_in()
    caller = await room.people.tokens.caller(tokens.access)
    assert caller is not None
    user, tenant = await room.people.accounts.me(caller)
    assert user is not None
    assert (user.email, user.name, tenant.name) == (ANN, "Ann", "Ann & Co")
    assert (caller.tenant, caller.role) == (tenant.id, Role.OWNER)
    assert Scope.DATA in caller.scopes
    assert Scope.TENANTS not in caller.scopes


async def test_registering_an_address_twice_is_answered_the_same_and_told_in_a_letter(room: Room) -> None:
    await room.registered()
    await room.people.accounts.register(Registrant(ANN.upper(), "another long secret"), HERE)
    letter = await room.letter(2)
    assert letter["kind"] == "already_registered"
    await room.logged_in()
    await room.people.accounts.reset_password(letter["token"], "yet another secret", HERE)
    with pytest.raises(WrongPassword):
        await room.logged_in()
    await room.people.accounts.log_in(ANN, "yet another secret", HERE)


async def test_of_two_registrations_of_an_address_the_first_that_is_confirmed_counts(room: Room) -> None:
    await room.people.accounts.register(Registrant(ANN, PASSWORD), HERE)
    await room.people.accounts.register(Registrant(ANN, "somebody else's secret"), HERE)
    letters = [json.loads(one.body) for one in await room.receiver.arrived(2)]
    await room.people.accounts.verify(letters[0]["token"], HERE)
    with pytest.raises(Conflict):
        await room.people.accounts.verify(letters[1]["token"], HERE)
    await room.logged_in()


async def test_who_runs_the_server_confirms_by_hand(room: Room) -> None:
    await room.people.accounts.register(Registrant(ANN, PASSWORD), HERE)
    await room.people.accounts.verify_by_hand(ANN)
    await room.logged_in()
    with pytest.raises(NotFound):
        await room.people.accounts.verify_by_hand(ANN)


async def test_a_token_of_a_letter_runs_out(room: Room) -> None:
    await room.people.accounts.register(Registrant(ANN, PASSWORD), HERE)
    room.clock.ahead_s += 90_000
    with pytest.raises(InvalidRequest):
        await room.people.accounts.verify((await room.letter())["token"], HERE)


@pytest.mark.parametrize("registration", ["closed", "invitation"])
async def test_registration_is_closed_where_it_is_not_open(
    database: Database, tmp_path: Path, registration: str
) -> None:
    people = build_people(settings_for(tmp_path, registration=registration), database, hashes=quick_hashes)
    with pytest.raises(PermissionDenied):
        await people.accounts.register(Registrant(ANN, PASSWORD), HERE)
    if registration == "closed":
        with pytest.raises(PermissionDenied):
            await people.accounts.join("vft_" + "x" * 43, PASSWORD, None, HERE)
    await people.close()


async def test_a_refresh_gives_the_next_tokens_and_an_old_one_ends_the_session(room: Room) -> None:
    await room.registered()
    first = await room.logged_in()
    second = await room.people.sign_ins.refresh(first.refresh)
    third = await room.people.sign_ins.refresh(second.refresh)
    assert len({first.refresh, second.refresh, third.refresh}) == 3
    assert await room.people.tokens.caller(third.access)
    with pytest.raises(RevokedCredential):  # somebody kept a copy
        await room.people.sign_ins.refresh(first.refresh)
    for refused in (third.refresh, second.refresh):
        with pytest.raises(RevokedCredential):
            await room.people.sign_ins.refresh(refused)
    with pytest.raises(RevokedCredential):
        await room.people.tokens.caller(third.access)


async def test_a_refresh_whose_answer_was_lost_is_answered_again_for_a_moment(room: Room) -> None:
    await room.registered()
    first = await room.logged_in()
    second = await room.people.sign_ins.refresh(first.refresh)
    again = await room.people.sign_ins.refresh(first.refresh)
    assert again.refresh == second.refresh
    await room.people.sign_ins.refresh(second.refresh)
    other = await room.logged_in()
    await room.people.sign_ins.refresh(other.refresh)
    room.clock.ahead_s += RETRY_S + 1
    with pytest.raises(RevokedCredential):
        await room.people.sign_ins.refresh(other.refresh)


async def test_many_refreshes_at_once_agree(room: Room) -> None:
    await room.registered()
    first = await room.logged_in()
    got = await asyncio.gather(*(room.people.sign_ins.refresh(first.refresh) for _ in range(8)))
    assert len({one.refresh for one in got}) == 1
    await room.people.sign_ins.refresh(got[0].refresh)


async def test_a_session_ends_by_itself(room: Room) -> None:
    await room.registered()
    tokens = await room.logged_in()
    room.clock.ahead_s += 1000
    with pytest.raises(ExpiredCredential):
        await room.people.tokens.caller(tokens.access)
    tokens = await room.people.sign_ins.refresh(tokens.refresh)
    room.clock.ahead_s += 30 * 86_400
    with pytest.raises(ExpiredCredential):
        await room.people.sign_ins.refresh(tokens.refresh)


async def test_logging_out_ends_one_session_or_all(room: Room) -> None:
    await room.registered()
    one, two, three = [await room.logged_in() for _ in range(3)]
    await room.people.sign_ins.end(one.refresh)
    with pytest.raises(RevokedCredential):
        await room.people.tokens.caller(one.access)
    caller = await room.people.tokens.caller(two.access)
    assert caller is not None
    assert await room.people.accounts.log_out_everywhere(caller) == 2
    for tokens in (two, three):
        with pytest.raises(RevokedCredential):
            await room.people.tokens.caller(tokens.access)
        with pytest.raises(RevokedCredential):
            await room.people.sign_ins.refresh(tokens.refresh)


async def test_another_password_ends_every_session_but_the_new_one(room: Room) -> None:
    await room.registered()
    old, here = await room.logged_in(), await room.logged_in()
    caller = await room.people.tokens.caller(here.access)
    assert caller is not None
    with pytest.raises(WrongPassword):
        await room.people.accounts.change_password(caller, "not the secret", "a new long secret", HERE)
    with pytest.raises(WeakPassword):
        await room.people.accounts.change_password(caller, PASSWORD, "short", HERE)
    new = await room.people.accounts.change_password(caller, PASSWORD, "a new long secret", HERE)
    for tokens in (old, here):
        with pytest.raises(RevokedCredential):
            await room.people.tokens.caller(tokens.access)
    assert await room.people.tokens.caller(new.access)
    with pytest.raises(WrongPassword):
        await room.logged_in()


async def test_a_forgotten_password_is_set_by_a_letter_which_nobody_else_learns_of(room: Room) -> None:
    await room.registered()
    tokens = await room.logged_in()
    await room.people.accounts.forgot_password("nobody@example.org", HERE)
    await room.people.accounts.forgot_password(ANN, HERE)
    letter = await room.letter(2)
    assert (letter["kind"], letter["to"]) == ("reset", ANN)
    with pytest.raises(WeakPassword):
        await room.people.accounts.reset_password(letter["token"], "short", HERE)
    await room.people.accounts.reset_password(letter["token"], "remembered this time", HERE)
    with pytest.raises(RevokedCredential):
        await room.people.tokens.caller(tokens.access)
    with pytest.raises(InvalidRequest):
        await room.people.accounts.reset_password(letter["token"], "remembered this time", HERE)
    await room.people.letters.wait_sent()
    assert len(room.receiver.received) == 2


async def test_only_the_newest_letter_sets_a_password(room: Room) -> None:
    await room.registered()
    await room.people.accounts.forgot_password(ANN, HERE)
    first = await room.letter(2)
    await room.people.accounts.forgot_password(ANN, HERE)
    second = await room.letter(3)
    with pytest.raises(InvalidRequest):
        await room.people.accounts.reset_password(first["token"], "remembered this time", HERE)
    await room.people.accounts.reset_password(second["token"], "remembered this time", HERE)


async def test_a_bcrypt_hash_from_elsewhere_lets_in_and_becomes_argon2id(
    room: Room, database: Database
) -> None:
    user_id = await room.registered()
    from_elsewhere = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    async with database.transaction() as connection:
        await users.set_password(connection, user_id, from_elsewhere)
    with pytest.raises(WrongPassword):
        await room.people.accounts.log_in(ANN, "not the secret", HERE)
    await room.logged_in()
    async with database.reading() as connection:
        user = await users.with_id(connection, user_id)
    assert user is not None
    assert (user.password_hash or "").startswith("$argon2id$")
    await room.logged_in()


async def test_guessing_is_slowed_for_the_account_and_address_and_says_how_long(room: Room) -> None:
    await room.registered()
    for _ in range(10):
        with pytest.raises(WrongPassword):
            await room.people.accounts.log_in(ANN, "a guess of many", HERE)
    with pytest.raises(RateLimited) as told:
        await room.logged_in()
    assert 0 < (told.value.retry_after_s or 0) <= 300
    await room.people.accounts.log_in(ANN, PASSWORD, Origin("192.0.2.2"))


async def test_many_guesses_at_once_are_no_way_around(room: Room) -> None:
    await room.registered()

    async def guess() -> str:
        try:
            await room.people.accounts.log_in(ANN, "a guess of many", HERE)
        except VoiceForgeError as error:
            return error.code
        return "in"

    codes = await asyncio.gather(*(guess() for _ in range(25)))
    assert codes.count("wrong_password") == 10
    assert codes.count("rate_limited") == 15


async def test_slips_are_forgotten_once_somebody_is_in(room: Room) -> None:
    await room.registered()
    for _ in range(3):
        for _ in range(6):
            with pytest.raises(WrongPassword):
                await room.people.accounts.log_in(ANN, "a guess of many", HERE)
        await room.logged_in()


async def test_nobody_can_flood_anothers_mailbox(room: Room) -> None:
    for _ in range(5):
        await room.people.accounts.register(Registrant(ANN, PASSWORD), HERE)
    await room.people.letters.wait_sent()
    assert len(room.receiver.received) == 3


async def test_a_letter_that_fails_is_sent_again(room: Room) -> None:
    room.receiver.answer(500, 200)
    await room.people.accounts.register(Registrant(ANN, PASSWORD), HERE)
    first, second = (json.loads(one.body) for one in await room.receiver.arrived(2))
    assert first == second


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "password1234",
        "123456789012",
        "aaaaaaaaaaaaaaaa",
        "QWERTYUIOP12",
        "ann@example.org",
        "x" * 2000,
    ],
)
async def test_a_weak_password_is_refused_with_the_rule(room: Room, password: str) -> None:
    with pytest.raises(WeakPassword, match="at least 12 characters"):
        await room.people.accounts.register(Registrant(ANN, password), HERE)


async def test_an_invited_person_joins_with_the_role_and_address_of_the_invitation(room: Room) -> None:
    owner = trusted()
    handed = await room.people.members.invite(owner, "Bob@Example.org", Role.VIEWER)
    assert handed.token is None  # a letter brings it
    letter = await room.letter()
    assert (letter["kind"], letter["to"], letter["tenant_name"]) == ("invite", "bob@example.org", "default")
    (waiting,) = await room.people.members.invitations(owner)
    assert (waiting.email, waiting.role) == ("bob@example.org", Role.VIEWER)
    user = await room.people.accounts.join(letter["token"], PASSWORD, "Bob", HERE)
    assert (user.tenant, user.role) == ("default", "viewer")
    assert not await room.people.members.invitations(owner)
    caller = await room.people.tokens.caller((await room.logged_in("bob@example.org")).access)
    assert caller is not None
    assert caller.scopes == frozenset({Scope.READ, Scope.USAGE})
    with pytest.raises(PermissionDenied, match="users:manage"):
        await room.people.members.list(caller)


async def test_an_invitation_that_is_withdrawn_or_made_anew_is_good_for_nothing(room: Room) -> None:
    await room.people.members.invite(OWNER, ANN, Role.MEMBER)
    first = await room.letter(1)
    await room.people.members.invite(OWNER, ANN, Role.ADMIN)
    second = await room.letter(2)
    with pytest.raises(InvalidRequest):
        await room.people.accounts.join(first["token"], PASSWORD, None, HERE)
    await room.people.members.withdraw(OWNER, ANN)
    with pytest.raises(InvalidRequest):
        await room.people.accounts.join(second["token"], PASSWORD, None, HERE)


async def test_without_letters_the_token_is_in_the_hand_of_who_asked(
    database: Database, tmp_path: Path
) -> None:
    people = build_people(settings_for(tmp_path), database, hashes=quick_hashes)
    handed = await people.members.invite(OWNER, ANN, Role.MEMBER)
    assert handed.token is not None
    user = await people.accounts.join(handed.token, PASSWORD, None, HERE)
    reset = await people.members.hand_out_reset(OWNER, user.id)
    assert reset.token is not None
    await people.accounts.reset_password(reset.token, "another long secret", HERE)
    await people.accounts.log_in(ANN, "another long secret", HERE)
    await people.close()


async def test_a_role_counts_from_now_on_and_one_owner_stays(room: Room) -> None:
    user_id = await room.registered()
    tokens = await room.logged_in()
    owner = await room.people.tokens.caller(tokens.access)
    assert owner is not None
    for change in (
        room.people.members.change(owner, user_id, role=Role.MEMBER),
        room.people.members.change(owner, user_id, disabled=True),
        room.people.members.remove(owner, user_id),
    ):
        with pytest.raises(Conflict, match="last owner"):
            await change
    bob = await room.people.members.add(owner, "bob@example.org", Role.OWNER, password=PASSWORD)
    await room.people.members.change(owner, user_id, role=Role.VIEWER)
    now = await room.people.tokens.caller(tokens.access)
    assert now is not None
    assert now.role is Role.VIEWER
    boss = await room.people.tokens.caller((await room.logged_in("bob@example.org")).access)
    assert boss is not None
    await room.people.members.change(boss, user_id, disabled=True)
    with pytest.raises(RevokedCredential):
        await room.people.tokens.caller(tokens.access)
    with pytest.raises(WrongPassword):
        await room.logged_in()
    await room.people.members.change(boss, user_id, disabled=False)
    await room.logged_in()
    assert [one.id for one in await room.people.members.list(boss)] == [bob.id, user_id]


async def test_two_owners_that_step_down_at_once_leave_one(room: Room) -> None:
    ann = await room.registered()
    owner = await room.people.tokens.caller((await room.logged_in()).access)
    assert owner is not None
    bob = await room.people.members.add(owner, "bob@example.org", Role.OWNER, password=PASSWORD)
    stepped = await asyncio.gather(
        *(room.people.members.change(owner, one, role=Role.MEMBER) for one in (ann, bob.id)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in stepped) == ["Conflict", "User"]


async def test_an_admin_does_not_touch_owners_and_makes_none(room: Room) -> None:
    ann = await room.registered()
    owner = await room.people.tokens.caller((await room.logged_in()).access)
    assert owner is not None
    await room.people.members.add(owner, "bob@example.org", Role.ADMIN, password=PASSWORD)
    admin = await room.people.tokens.caller((await room.logged_in("bob@example.org")).access)
    assert admin is not None
    members = room.people.members
    for change in (
        members.change(admin, ann, role=Role.MEMBER),
        members.change(admin, ann, disabled=True),
        members.remove(admin, ann),
        members.hand_out_reset(admin, ann),
        members.invite(admin, "eve@example.org", Role.OWNER),
        members.add(admin, "eve@example.org", Role.OWNER),
    ):
        with pytest.raises(PermissionDenied):
            await change


async def test_people_of_others_look_absent(room: Room) -> None:
    ann = await room.registered()
    for change in (
        room.people.members.show(OWNER, ann),
        room.people.members.change(OWNER, ann, role=Role.MEMBER),
        room.people.members.change(OWNER, ann, disabled=True),
        room.people.members.remove(OWNER, ann),
        room.people.members.hand_out_reset(OWNER, ann),
    ):
        with pytest.raises(NotFound):
            await change
    assert not await room.people.members.list(OWNER)


async def test_a_program_has_no_password_and_does_not_log_in(room: Room) -> None:
    with pytest.raises(InvalidRequest):
        await room.people.members.add(OWNER, "robot@example.org", Role.SERVICE, password=PASSWORD)
    robot = await room.people.members.add(OWNER, "robot@example.org", Role.SERVICE)
    with pytest.raises(Conflict):
        await room.people.members.change(OWNER, robot.id, role=Role.MEMBER)
    with pytest.raises(Conflict):
        await room.people.members.hand_out_reset(OWNER, robot.id)


async def test_nobody_of_a_disabled_tenant_logs_in_or_goes_on(room: Room) -> None:
    await room.registered()
    tokens = await room.logged_in()
    caller = await room.people.tokens.caller(tokens.access)
    assert caller is not None
    await room.people.tenants.change(OWNER, caller.tenant, disabled=True)
    for refused in (
        room.logged_in(),
        room.people.sign_ins.refresh(tokens.refresh),
        room.people.tokens.caller(tokens.access),
    ):
        with pytest.raises(RevokedCredential):
            await refused
    await room.people.tenants.change(OWNER, caller.tenant, disabled=False)
    await room.people.sign_ins.refresh(tokens.refresh)


async def test_people_come_in_and_are_changed_at_the_same_time(room: Room) -> None:
    user_id = await room.registered()
    owner = await room.people.tokens.caller((await room.logged_in()).access)
    assert owner is not None
    bob = await room.people.members.add(owner, "bob@example.org", Role.MEMBER, password=PASSWORD)
    roles = [Role.VIEWER, Role.MEMBER, Role.ADMIN, Role.MEMBER]
    done = await asyncio.gather(
        *(room.logged_in("bob@example.org") for _ in range(4)),
        *(room.people.members.change(owner, bob.id, role=role) for role in roles),
        *(room.people.accounts.forgot_password("bob@example.org", HERE) for _ in range(3)),
        return_exceptions=True,
    )
    assert [one for one in done if isinstance(one, BaseException)] == []
    assert (await room.people.members.show(owner, user_id)).role == "owner"


async def test_who_is_removed_is_gone_at_once(room: Room) -> None:
    user = await room.people.members.add(OWNER, ANN, Role.MEMBER, password=PASSWORD)
    tokens = await room.logged_in()
    await room.people.members.remove(OWNER, user.id)
    with pytest.raises(RevokedCredential):
        await room.people.tokens.caller(tokens.access)
    with pytest.raises(RevokedCredential):
        await room.people.sign_ins.refresh(tokens.refresh)
    with pytest.raises(WrongPassword):
        await room.logged_in()


async def test_another_process_signs_with_the_same_keys_and_believes_the_old_ones(
    room: Room, database: Database, tmp_path: Path
) -> None:
    await room.registered()
    first = await room.logged_in()
    other = build_people(settings_for(tmp_path), database, hashes=quick_hashes, clock=room.clock)
    assert await other.tokens.caller(first.access)
    await other.keys.rotate()
    second = await other.accounts.log_in(ANN, PASSWORD, HERE)
    await asyncio.sleep(0.11)  # so long are known keys good
    for tokens in (first, second):
        assert await room.people.tokens.caller(tokens.access)
    assert len((await room.people.keys.jwks())["keys"]) == 2
    await room.people.keys.rotate(distrust=True)
    await asyncio.sleep(0.11)
    for tokens in (first, second):
        with pytest.raises(MalformedCredential):
            await other.tokens.caller(tokens.access)
    await other.sign_ins.refresh(second.refresh)
    await other.close()


async def test_keys_are_rotated_by_themselves_and_forgotten_later(room: Room) -> None:
    await room.registered()
    await room.logged_in()
    (before,) = (await room.people.keys.jwks())["keys"]
    room.clock.ahead_s += 31 * 86_400
    await asyncio.sleep(0.11)
    await room.logged_in()
    kids = [one["kid"] for one in (await room.people.keys.jwks())["keys"]]
    assert len(kids) == 2
    assert before["kid"] == kids[1]
    room.clock.ahead_s += 2000
    await asyncio.sleep(0.11)
    assert [one["kid"] for one in (await room.people.keys.jwks())["keys"]] == kids[:1]


async def test_published_keys_have_no_private_part(room: Room) -> None:
    (key,) = (await room.people.keys.jwks())["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


async def test_what_is_over_goes_after_a_week(room: Room, database: Database) -> None:
    old = OldSessions(database, clock=room.clock)
    await room.registered()
    out, on = await room.logged_in(), await room.logged_in()
    await room.people.sign_ins.end(out.refresh)
    assert await old.forget() == (0, 0)
    room.clock.ahead_s += 8 * 86_400 + 10
    assert await old.forget() == (1, 1)
    await room.people.sign_ins.refresh(on.refresh)


_FREE = st.text(st.characters(codec=None), max_size=200)
_NEAR = st.from_regex(
    r"\A(vfr_[0-9a-f]{32}_[0-9]{1,12}_[A-Za-z0-9_-]{43}|vft_[A-Za-z0-9_-]{43}|eyJ.*\..*\..*)\Z"
)


class TestWhateverIsOffered:
    """No text that is none of ours lets anybody in, or breaks anything."""

    @given(text=_FREE | _NEAR)
    def test_as_a_token_is_refused_in_our_words(
        self, text: str, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.getbasetemp()

        async def offer() -> None:
            database = Database(f"sqlite:///{folder}/none.db")
            people = build_people(settings_for(folder), database, hashes=quick_hashes)
            try:
                with pytest.raises(MalformedCredential):
                    await people.sign_ins.refresh(text)
                if text.count(".") == 2 and text.startswith("eyJ"):
                    with pytest.raises(MalformedCredential):
                        key_id(text)
                    with pytest.raises(MalformedCredential):
                        public.read(text, TokenRules("voiceforge", "voiceforge"), 1.8e9)
            finally:
                await people.close()
                await database.close()

        public = PublicKey.of(PrivateKey.new("one").public(), "one")
        asyncio.run(offer())

    @given(text=_FREE | st.sampled_from(["$2b$04$", "$argon2id$"]).flatmap(lambda p: _FREE.map(p.__add__)))
    def test_as_a_hash_matches_nothing(self, text: str) -> None:
        assert not quick_hashes().matches(PASSWORD, text)

    @given(text=_FREE)
    def test_as_a_password_passes_or_is_told_the_rule(self, text: str) -> None:
        try:
            check_password(text, ANN)
        except WeakPassword as error:
            told = error.message
        else:
            told = "it has at least 12 characters" if 12 <= len(text) <= 1024 else ""
        assert "at least 12 characters" in told
