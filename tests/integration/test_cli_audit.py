"""`voiceforge audit` and `voiceforge privacy` as processes of their own, on both databases."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from voiceforge.infra.db.database import Database
from voiceforge.infra.db.tables_access import users

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Run:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VOICEFORGE_")}
    environment = kept | {
        "VOICEFORGE_DATA_DIR": str(tmp_path / "data"),
        "VOICEFORGE_DATABASE__URL": database_url,
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


async def test_what_is_done_is_listed_checked_exported_and_missed(run: Run, database: Database) -> None:
    made = json.loads(run("keys", "create", "build", "--role", "service", "--json").stdout)
    run("keys", "revoke", made["id"])
    listed = json.loads(run("audit", "list", "--json").stdout)
    assert [(one["action"], one["target"], one["actor"]["kind"]) for one in listed] == [
        ("key.revoked", made["id"], "server"),
        ("key.created", made["id"], "server"),
    ]
    assert "key.revoked" in run("audit", "list", "--action", "key.", "--target", made["id"]).stdout
    head = f"{listed[0]['number']}:{listed[0]['hash']}"
    checked = run("audit", "verify", "--anchor", head)
    assert (checked.returncode, f"head: {head}" in checked.stdout) == (0, True)
    lines = [json.loads(line) for line in run("audit", "export").stdout.splitlines()]
    assert [line["previous"] for line in lines] == ["0" * 64, lines[0]["hash"]]
    rows = list(csv.DictReader(run("audit", "export", "--format", "csv").stdout.splitlines()))
    assert [(row["action"], row["hash"]) for row in rows] == [
        (line["action"], line["hash"]) for line in lines
    ]

    async with database.transaction() as connection:
        await connection.execute(text("UPDATE audit SET actor_kind = 'nobody' WHERE number = 2"))
    broken = run("audit", "verify")
    assert (broken.returncode, broken.stdout.startswith("entry 2: ")) == (1, True)
    assert json.loads(run("audit", "verify", "--json").stdout)["broken_at"] == 2
    assert run("audit", "verify", "--anchor", "nonsense").returncode == 2


async def test_a_person_is_erased_from_the_command_line(run: Run, database: Database) -> None:
    async with database.transaction() as connection:
        row = {"id": "us_1", "tenant": "default", "email": "x@y.example", "role": "member", "created_at": 1.0}
        await connection.execute(insert(users).values(row))
    assert run("privacy", "erase", "--user", "us_1").returncode == 2
    done = run("privacy", "erase", "--user", "us_1", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["person"] is True
    assert run("privacy", "erase", "--user", "us_1", "--yes").stdout == "there was nothing\n"
    (newest, *_) = json.loads(run("audit", "list", "--json").stdout)
    assert (newest["action"], newest["target"]) == ("person.erased", "us_1")
    assert json.loads(run("audit", "verify", "--json").stdout)["whole"] is True
