"""Who comes in with what, on both databases: keys, short-lived tokens, and why somebody does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import event, text

from voiceforge.errors import (
    ExpiredCredential,
    MalformedCredential,
    Overloaded,
    RevokedCredential,
    Unauthenticated,
    VoiceForgeError,
    WrongAddress,
    WrongAudience,
)
from voiceforge.infra.db import api_keys as rows
from voiceforge.infra.db.api_keys import ApiKey
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.services.access import OWNER, Caller, Role, Scope
from voiceforge.services.authentication import Authentication, Offer
from voiceforge.services.key_holders import KeyHolders, key_hash
from voiceforge.services.key_text import hint_of, new_key
from voiceforge.services.short_tokens import REALTIME, ShortTokens
from voiceforge.testing.log_lines import log_lines

SECRET = b"k" * 32
HERE = "192.0.2.7"


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class House:
    """One database, and processes that authenticate by it. Time passes when a test says so."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock()
        self.reads = 0
        engine = database._engine.sync_engine
        event.listen(engine, "before_cursor_execute", self._count)

    def _count(self, *args: Any) -> None:
        self.reads += "FROM api_keys" in args[2] or "FROM users" in args[2]

    def process(self, configured: str | None = None, **more: Any) -> Authentication:
        return Authentication(
            configured,
            holders=KeyHolders(self.database, SECRET, self.clock),
            short_tokens=ShortTokens(b"t" * 32, configured, self.clock),
            clock=self.clock,
            monotonic=self.clock,
            **more,
        )

    async def key(self, **changes: Any) -> tuple[str, ApiKey]:
        text = new_key()
        made = ApiKey(
            id=new_id("key", self.clock()),
            tenant="default",
            user_id=None,
            role="member",
            name="test",
            hint=hint_of(text),
            scopes=("transcribe", "transcriptions:read"),
            models=None,
            addresses=None,
            tier=None,
            created_at=self.clock(),
        )
        made = replace(made, **changes)
        async with self.database.transaction() as connection:
            await rows.add(connection, made, key_hash(SECRET, text))
        return text, made

    async def change(self, key: ApiKey, **changes: Any) -> None:
        async with self.database.transaction() as connection:
            await rows.change(connection, replace(key, **changes))

    async def run(self, statement: str, **values: Any) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(text(statement), values)

    async def add_user(self, user_id: str, role: str) -> None:
        await self.run(
            "INSERT INTO users (id, tenant, email, role, created_at)"
            " VALUES (:id, 'default', :email, :role, 0)",
            id=user_id,
            email=f"{user_id}@example.org",
            role=role,
        )


@pytest_asyncio.fixture
async def house(database: Database) -> AsyncIterator[House]:
    yield House(database)


def offered(*credentials: str, address: str | None = HERE, realtime: bool = False) -> Offer:
    return Offer(credentials, address, realtime)


async def refused(authentication: Authentication, offer: Offer) -> VoiceForgeError:
    with pytest.raises(VoiceForgeError) as caught:
        await authentication.caller(offer)
    return caught.value


async def test_a_key_gives_its_own_caller(house: House) -> None:
    text, key = await house.key(models=("tiny",), tier="pro")
    caller = await house.process(required=True).caller(offered(text))
    assert caller == Caller(
        tenant="default",
        role=Role.MEMBER,
        scopes=frozenset({Scope.TRANSCRIBE, Scope.READ}),
        key_id=key.id,
        models=frozenset({"tiny"}),
        tier="unlimited",
        key_tier="pro",
        address=HERE,
    )


async def test_it_has_the_tier_of_its_tenant(house: House) -> None:
    text, _ = await house.key()
    assert (await house.process().caller(offered(text))).tier == "unlimited"


async def test_it_may_not_do_more_than_its_role(house: House) -> None:
    text, _ = await house.key(role="viewer", scopes=("transcribe", "transcriptions:read"))
    assert (await house.process().caller(offered(text))).scopes == {Scope.READ}


async def test_the_key_of_somebody_who_lost_their_role_loses_it_too(house: House) -> None:
    await house.add_user("usr_1", "admin")
    text, _ = await house.key(user_id="usr_1", role="owner", scopes=tuple(Scope))
    caller = await house.process().caller(offered(text))
    assert (caller.role, caller.user_id) == (Role.ADMIN, "usr_1")
    assert Scope.DATA not in caller.scopes


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"revoked_at": 999_999.0}, RevokedCredential),
        ({"expires_at": 1_000_000.0}, ExpiredCredential),
        ({"addresses": ("198.51.100.0/24", "2001:db8::/32")}, WrongAddress),
    ],
)
async def test_why_a_key_lets_nobody_in(
    house: House, changes: dict[str, Any], error: type[VoiceForgeError]
) -> None:
    text, _ = await house.key(**changes)
    for process in (house.process(), house.process("configured"), house.process(required=True)):
        assert type(await refused(process, offered(text))) is error


@pytest.mark.parametrize("who", ["users", "tenants"])
async def test_whoever_is_shut_out_has_no_keys(house: House, who: str) -> None:
    await house.run("INSERT INTO tenants (id, name, tier, created_at) VALUES ('acme', 'Acme', 'pro', 0)")
    await house.add_user("usr_1", "member")
    text, _ = await house.key(tenant="acme", user_id="usr_1")
    process = house.process()
    assert (await process.caller(offered(text))).tenant == "acme"
    await house.run(f"UPDATE {who} SET disabled_at = 1")
    house.clock.now += 1
    assert type(await refused(process, offered(text))) is RevokedCredential


@pytest.mark.parametrize("address", ["198.51.100.9", "::ffff:198.51.100.9", "2001:db8::1"])
async def test_a_key_is_good_from_its_networks(house: House, address: str) -> None:
    text, _ = await house.key(addresses=("198.51.100.0/24", "2001:db8::/32"))
    assert (await house.process().caller(offered(text, address=address))).address == address


async def test_what_is_nobodys_is_told_by_its_looks(house: House) -> None:
    process = house.process(required=True)
    whole = new_key()
    assert type(await refused(process, offered(whole))) is Unauthenticated
    assert type(await refused(process, offered(whole[:-1] + "!"))) is MalformedCredential
    assert type(await refused(process, offered("sk-something"))) is Unauthenticated
    assert type(await refused(process, offered())) is Unauthenticated
    assert type(await refused(process, offered("vft_abc.def"))) is MalformedCredential


async def test_a_slip_in_a_key_asks_no_database(house: House) -> None:
    await refused(house.process(), offered("vf_12345678_" + "a" * 38))
    assert house.reads == 0


async def test_where_nobody_needs_to_be_known_only_what_is_ours_is_checked(house: House) -> None:
    process = house.process()
    for credentials in ((), ("sk-whatever",), ("a.b.c",)):
        assert await process.caller(offered(*credentials)) == replace(OWNER, address=HERE)
    assert type(await refused(process, offered(new_key()))) is Unauthenticated


async def test_the_configured_key_is_the_owner_beside_keys_of_the_database(house: House) -> None:
    text, key = await house.key()
    process = house.process("configured")
    assert await process.caller(offered("configured")) == replace(OWNER, address=HERE)
    assert (await process.caller(offered(text))).key_id == key.id
    assert (await process.caller(offered("wrong", text))).key_id == key.id
    assert type(await refused(process, offered("wrong"))) is Unauthenticated


async def test_many_at_once_ask_the_database_once_and_it_is_believed_for_less_than_a_second(
    house: House,
) -> None:
    text, key = await house.key()
    process = house.process()
    house.reads = 0
    await asyncio.gather(*(process.caller(offered(text)) for _ in range(50)))
    assert house.reads == 1
    house.clock.now += 0.7
    await process.caller(offered(text))
    assert house.reads == 1
    await house.change(key, revoked_at=house.clock())
    house.clock.now += 0.2
    assert type(await refused(process, offered(text))) is RevokedCredential
    await process.close()


async def test_whoever_asked_first_may_leave(house: House) -> None:
    text, _ = await house.key()
    process = house.process()
    first = asyncio.create_task(process.caller(offered(text)))
    second = asyncio.create_task(process.caller(offered(text)))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).role is Role.MEMBER


async def test_its_use_is_noted_once_a_minute(house: House) -> None:
    text, key = await house.key()
    process = house.process()

    async def noted() -> float | None:
        await process.caller(offered(text))
        await process.close()
        async with house.database.reading() as connection:
            found = await rows.get(connection, "default", key.id)
        assert found is not None
        return found.last_used_at

    begin = house.clock.now
    assert await noted() == begin
    house.clock.now += 30
    assert await noted() == begin
    house.clock.now += 30
    assert await noted() == begin + 60


async def test_a_short_token_can_do_what_its_key_can_and_ends_with_it(house: House) -> None:
    text, key = await house.key(addresses=("192.0.2.0/24",), models=("tiny",))
    process, other = house.process(required=True), house.process(required=True)
    maker = await process.caller(offered(text))
    token = process.short_tokens.make(maker, 600)
    elsewhere = offered(token.value, address="203.0.113.5")
    caller = await other.caller(elsewhere)
    assert caller.scopes == {Scope.TRANSCRIBE}
    assert (caller.key_id, caller.models, caller.until) == (key.id, {"tiny"}, token.expires_at)
    await house.change(key, scopes=("transcriptions:read",))
    house.clock.now += 1
    assert (await other.caller(elsewhere)).scopes == frozenset()
    await house.change(key, revoked_at=house.clock())
    house.clock.now += 1
    assert type(await refused(other, elsewhere)) is RevokedCredential


async def test_a_short_token_ends_on_time_though_it_was_just_believed(house: House) -> None:
    text, _ = await house.key()
    process = house.process()
    token = process.short_tokens.make(await process.caller(offered(text)), 10)
    house.clock.now += 9.9
    await process.caller(offered(token.value))
    house.clock.now += 0.2
    assert type(await refused(process, offered(token.value))) is ExpiredCredential


async def test_a_persons_token_ends_with_the_person(house: House) -> None:
    await house.add_user("usr_1", "member")
    process = house.process(required=True)
    person = Caller("default", Role.MEMBER, frozenset(Scope), user_id="usr_1")
    token = process.short_tokens.make(person, 600)
    assert (await process.caller(offered(token.value))).user_id == "usr_1"
    await house.run("DELETE FROM users")
    house.clock.now += 1
    assert type(await refused(process, offered(token.value))) is Unauthenticated


async def test_the_owners_token_ends_where_the_owner_must_show_a_key(house: House) -> None:
    token = house.process().short_tokens.make(OWNER, 600)
    assert (await house.process().caller(offered(token.value))).scopes == {Scope.TRANSCRIBE}
    assert type(await refused(house.process(required=True), offered(token.value))) is RevokedCredential
    assert type(await refused(house.process("new"), offered(token.value))) is RevokedCredential


async def test_a_client_secret_is_for_realtime_sessions_only(house: House) -> None:
    process = house.process()
    secret = process.short_tokens.make(OWNER, 600, prefix=REALTIME).value
    assert type(await refused(process, offered(secret))) is WrongAudience
    assert (await process.caller(offered(secret, realtime=True))).scopes == {Scope.TRANSCRIBE}


class People:
    """Access tokens as whoever has accounts tells them."""

    def __init__(self) -> None:
        self.asked = 0

    async def caller(self, token: str) -> Caller | None:
        self.asked += 1
        match token:
            case "anna.is.here":
                return Caller("acme", Role.VIEWER, frozenset({Scope.READ}), user_id="anna")
            case "anna.was.here":
                raise ExpiredCredential("the session is over")
        return None


async def test_tokens_of_people_are_told_by_who_made_them(house: House) -> None:
    people = People()
    process = house.process(required=True, access_tokens=people)
    assert (await process.caller(offered("anna.is.here"))).user_id == "anna"
    assert (await process.caller(offered("anna.is.here"))).user_id == "anna"
    assert people.asked == 1
    assert type(await refused(process, offered("anna.was.here"))) is ExpiredCredential
    assert type(await refused(process, offered("some.other.jwt"))) is Unauthenticated
    open_door = house.process(access_tokens=people)
    assert (await open_door.caller(offered("some.other.jwt"))).tenant == "default"


async def test_an_address_that_guesses_is_asked_to_wait_and_others_are_not(house: House) -> None:
    text, _ = await house.key()
    fresh, _ = await house.key()
    process = house.process(required=True, failures_per_minute=3)
    await process.caller(offered(text))
    for _ in range(3):
        assert type(await refused(process, offered(new_key()))) is Unauthenticated
    house.reads = 0
    slowed = await refused(process, offered(new_key()))
    assert isinstance(slowed, Overloaded)
    assert slowed.retry_after_s == 60
    assert isinstance(await refused(process, offered("guess")), Overloaded)
    assert isinstance(await refused(process, offered(fresh)), Overloaded)
    assert house.reads == 0
    # Who was let in lately still is, from there too; and whoever offers nothing is told what is needed.
    house.clock.now += 1
    await process.caller(offered(text))
    assert type(await refused(process, offered())) is Unauthenticated
    await process.caller(offered(fresh, address="203.0.113.1"))
    house.clock.now += 60
    await process.caller(offered(fresh))


async def test_addresses_that_guess_are_not_remembered_without_end(house: House) -> None:
    process = house.process(required=True, failures_per_minute=1)
    for number in range(10_050):
        process._tries.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(process._tries._counts) == 10_000


async def test_a_household_of_ipv6_counts_as_one(house: House) -> None:
    process = house.process(required=True, failures_per_minute=1)
    await refused(process, offered("guess", address="2001:db8::1"))
    assert isinstance(await refused(process, offered("guess", address="2001:db8::2:9")), Overloaded)
    assert type(await refused(process, offered("guess", address="2001:db8:0:1::1"))) is Unauthenticated


async def test_a_refusal_is_one_line_without_the_credential(house: House) -> None:
    text, _ = await house.key(revoked_at=1.0)
    with log_lines() as lines:
        await refused(house.process(), offered(text))
    told = [line for line in lines if line["event"] == "refused"]
    assert [(line["code"], line["address"]) for line in told] == [("revoked_credential", HERE)]
    assert text not in str(lines)
    assert text[12:] not in str(lines)


async def test_what_was_begun_with_a_token_goes_on_when_that_expires_and_ends_with_its_key(
    house: House,
) -> None:
    text, key = await house.key()
    process = house.process(required=True)
    token = process.short_tokens.make(await process.caller(offered(text)), 10).value
    caller = await process.caller(offered(token))
    assert process.can_be_shut_out(caller)
    waiting = asyncio.create_task(process.shut_out(caller))
    house.clock.now += 60
    assert type(await refused(process, offered(token))) is ExpiredCredential
    house.reads = 0
    while not house.reads:  # noqa: ASYNC110  # nothing would tell us
        await asyncio.sleep(0)
    assert not waiting.done()
    await house.change(key, revoked_at=house.clock())
    house.clock.now += 1
    assert type(await asyncio.wait_for(waiting, 10)) is RevokedCredential


async def test_nobody_shuts_out_the_owner_of_the_machine(house: House) -> None:
    process = house.process("configured")
    assert not process.can_be_shut_out(await process.caller(offered("configured")))


async def test_a_listener_works_for_a_tenant_as_long_as_that_is_there(house: House) -> None:
    await house.run("INSERT INTO tenants (id, name, tier, created_at) VALUES ('acme', 'Acme', 'pro', 0)")
    process = house.process(required=True)
    caller = await process.of_tenant("acme", HERE)
    assert (caller.tenant, caller.scopes, caller.tier) == ("acme", {Scope.TRANSCRIBE}, "pro")
    await house.run("UPDATE tenants SET disabled_at = 1 WHERE id = 'acme'")
    for tenant, error in (("acme", RevokedCredential), ("nobody", Unauthenticated)):
        with pytest.raises(error):
            await process.of_tenant(tenant, HERE)
    assert (await process.of_tenant("default", HERE)).address == HERE


async def test_without_a_database_there_is_the_configured_key_only() -> None:
    alone = Authentication("configured")
    assert (await alone.caller(offered("configured"))).role is Role.OWNER
    assert type(await refused(alone, offered(new_key()))) is Unauthenticated
