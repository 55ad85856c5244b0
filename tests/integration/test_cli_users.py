"""`voiceforge users` as processes of their own, on both databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PASSWORD = "a rather long secret"
ANN = "ann@example.org"


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Run:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VOICEFORGE_")}
    environment = kept | {
        "VOICEFORGE_DATA_DIR": str(tmp_path / "data"),
        "VOICEFORGE_DATABASE__URL": database_url,
        "COLUMNS": "200",
    }

    def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "voiceforge.main.cli", "users", *arguments],
            input=typed,
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=60,
        )

    return run


def test_people_are_added_listed_and_changed(run: Run) -> None:
    token = run("add", ANN.upper(), "--role", "owner", "--name", "Ann")
    assert (token.returncode, token.stdout[:4], token.stdout.count("\n")) == (0, "vft_", 1)
    made = run("add", "bob@example.org", "--password-stdin", "--json", typed=f"{PASSWORD}\n")
    bob = json.loads(made.stdout)
    assert (bob["email"], bob["role"], bob["tenant"]) == ("bob@example.org", "member", "default")
    assert PASSWORD not in made.stdout + made.stderr
    listed = json.loads(run("list", "--json").stdout)
    assert [(one["email"], one["role"], one["disabled"]) for one in listed] == [
        ("bob@example.org", "member", False),
        (ANN, "owner", False),
    ]
    assert run("role", "bob@example.org", "viewer").stdout == "bob@example.org is viewer\n"
    assert run("disable", "bob@example.org").returncode == 0
    table = run("list").stdout.splitlines()
    assert "viewer  disabled" in table[1]


def test_what_cannot_be_is_one_line(run: Run) -> None:
    run("add", ANN, "--role", "owner")
    for arguments, told in (
        (("role", ANN, "member"), "this is the last owner"),
        (("disable", ANN), "this is the last owner"),
        (("add", ANN), "has an account already"),
        (("verify", "nobody@example.org"), "nobody has registered"),
        (("role", "nobody@example.org", "viewer"), "nobody has this address"),
        (("add", "x@example.org", "--tenant", "tn_none"), "there is no such tenant"),
    ):
        failed = run(*arguments)
        assert failed.returncode == 1
        assert told in failed.stderr
        assert failed.stderr.count("\n") == 1
    weak = run("password", ANN, "--password-stdin", typed="short\n")
    assert "at least 12 characters" in weak.stderr
