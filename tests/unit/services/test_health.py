from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.health import Check, Health, HealthReport
from voiceforge.speech.engines.device import RunsOn
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import FakeEngine


@pytest.fixture
def engines() -> Iterator[EngineRoom]:
    on = {"a": RunsOn("cpu, int8"), "wished": RunsOn("cpu, float32", ("no CUDA device was found",))}
    hosts = InProcessHosts(lambda model_id: FakeEngine(), runs_on=on.get)
    room = EngineRoom(hosts, metrics=Metrics("test"))
    yield room
    room.close(0)


@pytest.fixture
def health(engines: EngineRoom, tmp_path: Path) -> Health:
    ticks = iter(range(100, 200))
    return Health(
        engines=engines,
        default_model="a",
        data_dir=tmp_path / "not" / "yet" / "made",
        version="1.2.3",
        clock=lambda: float(next(ticks)),
    )


def check(report: HealthReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def test_it_is_ready_once_the_default_model_is_loaded_and_no_sooner(
    health: Health, engines: EngineRoom
) -> None:
    engines.queue("another")
    assert health.ready().status == "failed"
    assert check(health.ready(), "model").detail == "loading"
    engines.queue("a")
    assert health.ready().status == "ok"
    assert check(health.ready(), "model").data == {"default": "a", "loaded": ["a", "another"]}
    engines.unload("a")
    assert health.ready().status == "failed"


def test_it_says_why_the_model_is_not_there(health: Health, engines: EngineRoom) -> None:
    health.model_failed("the file is damaged")
    assert check(health.ready(), "model").detail == "the file is damaged"
    engines.queue("a")  # a later request loaded it after all
    assert health.ready().status == "ok"


def test_who_is_leaving_is_not_ready_but_still_well(health: Health, engines: EngineRoom) -> None:
    engines.queue("a")
    health.drain()
    assert health.ready().status == "failed"
    assert check(health.ready(), "serving").detail == "shutting down"
    assert check(health.report(), "model").status == "ok"


def test_what_others_watch_degrades_it_and_it_stays_ready(health: Health, engines: EngineRoom) -> None:
    engines.queue("a")
    health.watch(lambda: (Check("database", "degraded", "away"), Check("store", "ok", "it answers")))
    assert health.ready().status == "degraded"
    assert check(health.ready(), "database").detail == "away"
    health.drain()
    assert health.ready().status == "failed"


def test_a_device_that_was_wished_and_not_had_degrades(health: Health, engines: EngineRoom) -> None:
    assert check(health.report(), "device").detail == "known once a model is loaded"
    engines.queue("a")
    assert check(health.report(), "device").status == "ok"
    engines.queue("wished")
    told = check(health.report(), "device")
    assert told.status == "degraded"
    assert told.detail == "cpu, float32; cpu, int8; no CUDA device was found"
    assert told.data == {"models": {"a": "cpu, int8", "wished": "cpu, float32"}}
    assert health.ready().status == "ok"
    engines.unload("wished")
    assert check(health.report(), "device").status == "ok"


def test_the_report_covers_everything_and_is_as_bad_as_its_worst_part(
    health: Health, engines: EngineRoom
) -> None:
    ticket = engines.open("a")
    report = health.report()
    assert [c.name for c in report.checks] == ["model", "disk", "memory", "device", "queue"]
    assert (report.version, report.uptime_s) == ("1.2.3", 1.0)
    assert check(report, "disk").data["free_bytes"] > 0  # of the folder it will be made in
    assert check(report, "memory").data["process_bytes"] > 0
    assert check(report, "device").detail == "cpu, int8"
    assert check(report, "queue").data["open_requests"] == 1
    assert check(report, "queue").data["waiting"] == {"a": {"live": 0, "interactive": 0, "bulk": 0}}
    ticket.close()
    engines.unload("a")
    assert check(health.report(), "model").status == "failed"
    assert health.report().status == "failed"


async def test_from_the_loop_disk_and_memory_are_those_of_the_last_look(
    engines: EngineRoom, tmp_path: Path
) -> None:
    now_s = 1000.0
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    health = Health(engines=engines, default_model="a", data_dir=data_dir, version="1", clock=lambda: now_s)
    first = await health.report_seen()
    assert [c.name for c in first.checks] == ["model", "disk", "memory", "device", "queue"]
    engines.queue("a")
    now_s += 9.0
    second = await health.report_seen()
    assert check(second, "disk") is check(first, "disk")  # nobody waited for another look
    assert check(second, "model").status == "ok"  # what costs nothing is as of now
    now_s += 60.0
    assert check(await health.report_seen(), "disk") is not check(first, "disk")  # too old to be told


async def test_a_disk_that_cannot_be_asked_is_told_to_who_waits_and_asked_again(
    engines: EngineRoom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = Health(engines=engines, default_model="a", data_dir=tmp_path, version="1")

    def broken(path: object) -> None:
        raise OSError(5, "no answer")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", broken)
        with pytest.raises(OSError, match="no answer"):
            await health.report_seen()
    assert check(await health.report_seen(), "disk").data["free_bytes"] > 0
