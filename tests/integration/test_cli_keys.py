"""`voiceforge init` and `voiceforge keys` as processes of their own, on both databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from voiceforge.infra.db.database import Database
from voiceforge.services.access import Role, Scope
from voiceforge.services.authentication import Authentication, Offer
from voiceforge.services.key_holders import KeyHolders
from voiceforge.services.key_text import is_whole

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SECRET = "a secret of at least 32 characters"


@pytest.fixture
def run(empty_database_url: str, tmp_path: Path) -> Run:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VOICEFORGE_")}
    environment = kept | {
        "VOICEFORGE_DATA_DIR": str(tmp_path / "data"),
        "VOICEFORGE_DATABASE__URL": empty_database_url,
        "VOICEFORGE_AUTH__SECRET": SECRET,
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "voiceforge.main.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=60,
        )

    return run


async def test_init_makes_a_database_and_an_owners_key_once(run: Run, empty_database_url: str) -> None:
    early = run("keys", "list")
    assert (early.returncode, "run `voiceforge init`" in early.stderr) == (1, True)
    made = json.loads(run("init", "--json").stdout)
    assert is_whole(made["key"])
    assert "@" not in made["database"].replace(":***@", "")
    again = run("init")
    assert again.returncode == 0
    assert "vf_" not in again.stdout.replace("vf_…", "")
    assert "VOICEFORGE_AUTH__REQUIRED=true voiceforge serve" in again.stdout
    listed = json.loads(run("keys", "list", "--json").stdout)["data"]
    assert [(key["id"], key["role"], key["status"]) for key in listed] == [(made["id"], "owner", "active")]

    from voiceforge.main.server_secret import ServerSecret

    database = Database(empty_database_url)
    holders = KeyHolders(database, ServerSecret(SECRET.encode()).derived("api keys"))
    authentication = Authentication(required=True, holders=holders)
    caller = await authentication.caller(Offer([made["key"]]))
    assert (caller.tenant, caller.role, caller.scopes) == ("default", Role.OWNER, frozenset(Scope))
    await authentication.close()
    await database.close()


def test_keys_are_made_rotated_and_revoked(run: Run) -> None:
    run("init")
    options = (
        "--role",
        "service",
        "--scope",
        "transcribe",
        "--address",
        "192.0.2.0/24",
        "--expires-days",
        "9",
    )
    made = json.loads(run("keys", "create", "kiosk", *options, "--json").stdout)
    assert (made["scopes"], made["addresses"], made["role"]) == (["transcribe"], ["192.0.2.0/24"], "service")
    plain = run("keys", "create", "another")
    assert is_whole(plain.stdout.strip())
    assert "it is not told again" in plain.stderr
    rotated = run("keys", "rotate", made["id"], "--overlap-s", "60")
    assert is_whole(rotated.stdout.strip())
    revoked = run("keys", "revoke", made["id"])
    assert revoked.stdout == f"{made['id']} revoked\n"
    table = run("keys", "list").stdout
    assert [line.split()[2] for line in table.splitlines()[1:]] == ["active", "active", "revoked", "active"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("create", "x", "--scope", "fly"), 2, "there is no scope 'fly'"),
        (("create", "x", "--model", "nonsense"), 2, "There is no model 'nonsense'"),
        (("create", "x", "--tenant", "nobody"), 1, "there is no such tenant"),
        (("revoke", "key_0"), 1, "there is no such key"),
        (("list", "--server", "http://127.0.0.1:9", "--tenant", "x"), 2, "a server knows"),
        (("list", "--server", "http://127.0.0.1:9"), 1, "no server answers"),
    ],
)
def test_what_goes_wrong_is_one_line(run: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    run("db", "upgrade", "--quiet")
    failed = run("keys", *arguments)
    assert (failed.returncode, failed.stdout) == (code, "")
    assert told in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_a_key_for_a_container_is_made_without_a_database(run: Run) -> None:
    made = run("keys", "generate")
    assert is_whole(made.stdout.strip())
