"""`voiceforge db` as a process of its own, on both databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrations import HEAD

Db = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def db(empty_database_url: str, tmp_path: Path) -> Db:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VOICEFORGE_")}
    environment = kept | {
        "VOICEFORGE_DATA_DIR": str(tmp_path / "data"),
        "VOICEFORGE_DATABASE__URL": empty_database_url,
        "COLUMNS": "100",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "voiceforge.main.cli", "db", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=60,
        )

    return run


async def told(empty_database_url: str, statement: str) -> None:
    database = Database(empty_database_url)
    async with database.transaction() as connection:
        await connection.execute(text(statement))
    await database.close()


async def test_up_down_and_what_check_says_of_it(db: Db, empty_database_url: str) -> None:
    empty = db("check")
    assert (empty.returncode, empty.stderr) == (1, "")
    assert "no tables yet: run `voiceforge db upgrade`" in empty.stdout
    up = db("upgrade")
    assert (up.returncode, up.stdout) == (0, f"the database went from base to {HEAD}\n")
    assert db("upgrade").stdout == f"nothing to do: the database is at {HEAD}\n"
    fine = db("check", "--json")
    assert fine.returncode == 0
    assert json.loads(fine.stdout) == {"fits": True, "current": HEAD, "needed": HEAD, "differences": []}

    await told(empty_database_url, "ALTER TABLE chores ADD COLUMN odd TEXT")
    changed = db("check")
    assert changed.returncode == 1
    assert "odd" in changed.stdout
    await told(empty_database_url, "ALTER TABLE chores DROP COLUMN odd")

    refused = db("downgrade", "--to", "base")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--yes" in refused.stderr
    assert db("downgrade", "--to", "base", "--yes", "--quiet").stdout == ""
    assert db("check").returncode == 1


async def test_one_line_for_what_cannot_be(db: Db, empty_database_url: str) -> None:
    assert db("upgrade", "-q").returncode == 0
    nowhere = db("downgrade", "--to", "nowhere", "--yes")
    assert (nowhere.returncode, nowhere.stdout) == (2, "")
    assert nowhere.stderr == "voiceforge: there is no such revision to go to\n"
    await told(empty_database_url, "UPDATE alembic_version SET version_num = '9999'")
    assert "is at 9999" in db("check").stdout
    for newer in (db("upgrade"), db("downgrade", "--yes")):
        assert newer.returncode == 1
        assert newer.stderr == "voiceforge: a newer VoiceForge has used this database; use that one\n"


def test_a_database_that_is_away(tmp_path: Path) -> None:
    away = subprocess.run(
        [sys.executable, "-m", "voiceforge.main.cli", "db", "check"],
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "VOICEFORGE_DATA_DIR": str(tmp_path),
            "VOICEFORGE_DATABASE__URL": "postgresql://nobody:secret-word@127.0.0.1:1/none",
        },
        cwd=tmp_path,
        timeout=60,
    )
    assert away.returncode == 1
    assert away.stderr == "voiceforge: the database does not answer for now\n"
    assert "secret-word" not in away.stdout
