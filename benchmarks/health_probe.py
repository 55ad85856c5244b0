"""Asks a server how it is, again and again, while others load it; in a process of its own, so that it waits
for the server and not for whoever makes the load.

Every question comes on a new connection, as a load balancer's does, and when it is due, whether or not the
last one has been answered: a long wait is neither hidden behind questions that were never asked nor counted
again in each of those that come after it. Its time counts from when it was due. Where the system lets it, its
priority is above that of all others: it shall wait for the server's answer and not for a core.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from urllib.parse import urlsplit

_TIMEOUT_S = 60.0
_MOST_AT_A_TIME = 64
_PRIORITY = -10


@dataclass(frozen=True, slots=True)
class Probe:
    """due_s: since the first one. seconds: from then to the answer. status None: there was none."""

    due_s: float
    seconds: float
    status: int | None


@dataclass(slots=True)
class Probes:
    """Filled when the block ends."""

    found: list[Probe] = field(default_factory=list)


@contextlib.contextmanager
def health_watched(url: str, *, path: str = "/health", per_second: float = 20.0) -> Iterator[Probes]:
    """Probe while the block runs."""
    probes = Probes()
    command = [sys.executable, __file__, f"{url}{path}", str(per_second)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        try:
            yield probes
        finally:
            output, _ = process.communicate()  # closing its input ends it
            probes.found = [Probe(*entry) for entry in json.loads(output)]


def main() -> None:
    address, per_second = urlsplit(sys.argv[1]), float(sys.argv[2])
    with contextlib.suppress(OSError):  # for administrators only
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    over = threading.Event()
    threading.Thread(target=_until_told, args=(over,), daemon=True).start()
    print("probing", flush=True)
    began = time.perf_counter()

    def probe(due_s: float) -> Probe:
        status = _ask(address.hostname or "", address.port, address.path)
        return Probe(due_s, time.perf_counter() - began - due_s, status)

    asked: list[Future[Probe]] = []
    with ThreadPoolExecutor(_MOST_AT_A_TIME) as threads:
        while True:
            due_s = len(asked) / per_second
            if over.wait(max(0.0, began + due_s - time.perf_counter())):
                break
            asked.append(threads.submit(probe, due_s))
    print(json.dumps([astuple(one.result()) for one in asked]))


def _until_told(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _ask(host: str, port: int | None, path: str) -> int | None:
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.read()
    except (OSError, http.client.HTTPException):
        return None
    else:
        return reply.status
    finally:
        connection.close()


if __name__ == "__main__":
    main()
