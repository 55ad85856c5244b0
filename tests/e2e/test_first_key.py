"""A server in a container: its first key comes from the environment, and both of its processes know it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import httpx

from voiceforge.services.key_text import new_key

Start = Callable[..., subprocess.Popen[str]]
WAIT_S = 60


def statuses(url: str, key: str) -> set[int]:
    """Of twenty connections, which several processes share."""
    headers = {"Authorization": f"Bearer {key}"}
    return {httpx.get(f"{url}/v1/models", headers=headers, timeout=WAIT_S).status_code for _ in range(20)}


def test_the_first_key_is_known_and_a_revoked_one_is_refused_by_all_processes(start: Start) -> None:
    first = new_key()
    settings = {"VOICEFORGE_AUTH__REQUIRED": "true", "VOICEFORGE_AUTH__FIRST_KEY": first}
    process = start("serve", "--port", "0", "--workers", "2", settings=settings)
    assert process.stdout is not None
    said = process.stdout.readline()
    assert "API key required" in said
    url = said.split()[3]
    # The database is made, and the key added, while the server answers already.
    give_up = time.monotonic() + WAIT_S
    while statuses(url, first) != {200}:
        assert time.monotonic() < give_up
        time.sleep(0.1)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {first}"}, timeout=WAIT_S) as owner:
        [known] = owner.get("/v1/keys").json()["data"]
        assert (known["role"], known["hint"]) == ("owner", first[:11])
        made = owner.post("/v1/keys", json={"name": "another"}).json()
        assert statuses(url, made["key"]) == {200}
        owner.delete(f"/v1/keys/{made['id']}").raise_for_status()
        time.sleep(1)  # what is promised
        assert statuses(url, made["key"]) == {401}
