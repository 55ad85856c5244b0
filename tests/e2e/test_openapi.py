"""What the server says of itself holds: whatever is asked, by those who run it and by nobody, it answers with
what its OpenAPI document tells of, and never with a fault of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

_KEY = "the-key-of-this-test"
_CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
_SETTINGS = {"VOICEFORGE_API_KEY": _KEY, "VOICEFORGE_AUTH__FAILURES_PER_MINUTE": "0"}
_OWNER = {"Authorization": f"Bearer {_KEY}"}


@pytest.mark.parametrize(
    ("headers", "phases"),
    [(_OWNER, "coverage,fuzzing,stateful"), ({}, "fuzzing")],
    ids=["owner", "nobody"],
)
def test_it_answers_as_documented(
    headers: dict[str, str], phases: str, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    server = start("serve", "--port", "0", settings=_SETTINGS)
    assert server.stdout is not None
    url = server.stdout.readline().split()[3]
    document = tmp_path / "openapi.json"
    document.write_bytes(httpx.get(f"{url}/openapi.json", headers=_OWNER).raise_for_status().content)
    asked = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", url),
            *(part for name, value in headers.items() for part in ("-H", f"{name}: {value}")),
            *("--checks", _CHECKS, "--phases", phases, "--continue-on-failure"),
            *("--max-examples", "2", "--seed", "1", "--workers", "1", "--no-color"),
            *("--request-timeout", "60"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        cwd=tmp_path,
    )
    assert asked.returncode == 0, asked.stdout[-6000:]
    asked_for, tested = re.findall(r"(?:Selected|Tested): (\d+)", asked.stdout)
    assert int(tested) == int(asked_for) > 50
