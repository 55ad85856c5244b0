"""A server that is told to stop while it is still starting ends as well as one that is up: at once, with exit
code 0, and nothing of it stays."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from voiceforge.testing.processes import wait_until_gone, wait_until_it_takes_signals

Start = Callable[..., subprocess.Popen[str]]

# Nobody listens there: a worker waits for its broker.
WORKER = {"VOICEFORGE_JOBS__BROKER_URL": "redis://127.0.0.1:1/0"}


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (("serve", "--port", "0"), {}),
        (("serve", "--port", "0", "--workers", "2"), {}),
        (("worker",), WORKER),
        (("wyoming", "--port", "0"), {}),
    ],
    ids=["server", "several", "worker", "wyoming"],
)
@pytest.mark.parametrize("earliest_s", [0.0, 0.5, 1.0])
def test_ends_well_whenever_it_is_told_to(
    start: Start, tmp_path: Path, command: tuple[str, ...], settings: dict[str, str], earliest_s: float
) -> None:
    if "worker" in command:
        pytest.importorskip("celery")
    process = start(*command, settings=settings)
    wait_until_it_takes_signals(process.pid)
    after_s = random.uniform(earliest_s, earliest_s + 0.5)
    time.sleep(after_s)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, f"after {after_s:.3f} s"
    wait_until_gone(family)
    assert "Traceback" not in (tmp_path / "stderr-0").read_text()
