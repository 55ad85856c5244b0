"""The live door around real streams whose engine has a script: idleness, keyterms, a full house."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import cast

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.infra.modelstore.disk import DiskModelStore
from voiceforge.infra.modelstore.hub import Hub
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.models import ModelInfo, Models
from voiceforge.services.streams import StreamLimits, Streams
from voiceforge.speech.audio.stream_decoder import LocalStreamDecoders
from voiceforge.speech.engines.base import Capabilities
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import FakeEngine, says
from voiceforge.testing.live_server import live_server
from voiceforge.testing.scripted_services import FAKE_INFO, ScriptedTranscriptions, scripted_services

KEY = "test-key"
IDLE_S = 1.0
SOCKETS = 3


@dataclass
class House:
    url: str
    engine: FakeEngine

    def open(self, query=""):
        return connect(
            f"{self.url.replace('http', 'ws', 1)}/v1/listen?encoding=linear16&sample_rate=16000{query}",
            additional_headers={"Authorization": f"Token {KEY}"},
        )


class Known:
    """What there is to know of a model that takes keyterms."""

    def get(self, model_id: str) -> ModelInfo:
        return replace(FAKE_INFO, capabilities={"max_keyterms": 3})


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    capabilities = Capabilities(
        languages=frozenset({"en"}), longest_window_s=30.0, best_window_s=10.0, max_keyterms=3
    )
    engine, metrics = FakeEngine(says("some words"), capabilities=capabilities), Metrics("test")
    engines = EngineRoom(InProcessHosts(lambda model_id: engine, None), metrics=metrics)
    store = DiskModelStore(folder / "models", Hub(None), offline=True)
    streams = Streams(
        models=Models(store, default="moonshine-tiny-en", aliases={"nova-3": "default"}, loaded=engines),
        engines=engines,
        aligner=lambda: None,
        decoders=LocalStreamDecoders(),
        metrics=metrics,
        limits=StreamLimits(idle_s=IDLE_S, max_sessions=SOCKETS, max_sessions_per_tenant=SOCKETS),
    )
    made = scripted_services(ScriptedTranscriptions(), folder)
    services = replace(made, streams=streams, models=cast(Models, Known()))
    with live_server(create_app(services, HttpConfig(folder, "1.2.3", api_key=KEY))) as server:
        yield House(server.url, engine)
    engines.close(0)
    streams.close()
    made.engines.close(0)


def ending(socket):
    told = []
    try:
        while True:
            told.append(json.loads(socket.recv(timeout=30)))
    except ConnectionClosed as closed:
        return told, closed.rcvd.code, closed.rcvd.reason


def test_a_client_that_says_nothing_is_let_go(house):
    with house.open() as socket:
        told, code, reason = ending(socket)
    assert told == []
    assert code == 1011
    assert reason.startswith("NET-0001")


def test_keep_alive_alone_keeps_a_stream_for_as_long_as_it_comes(house):
    with house.open() as socket:
        for _ in range(int(3 * IDLE_S / 0.3)):
            socket.send('{"type": "KeepAlive"}')
            with suppress(TimeoutError):
                socket.recv(timeout=0.3)  # it is closed, or nothing comes
        socket.send('{"type": "CloseStream"}')
        told, code, _ = ending(socket)
    assert code == 1000
    assert [one["type"] for one in told] == ["Metadata"]


def test_keyterms_change_while_the_stream_runs(make_sdk, house, beckett):
    sdk = make_sdk(house.url, KEY)
    if sdk.major < 7:
        pytest.skip("these versions know no Configure")
    said = sdk.pcm(beckett)
    made = sdk.live(
        ["configure", {"keyterms": ["Godot", "Estragon"]}],
        ["configure", {"keyterms": ["a", "b", "c", "d"]}],
        ["configure", {"keyterms": None, "features": {"numerals": False}}],
        sdk.audio(said[: 4 * 32_000], 32_000),
        ["Finalize"],
        ["await", {"from_finalize": True}],
        ["CloseStream"],
        ["end"],
        model="nova-3",
        keyterm=["Pozzo"],
        encoding="linear16",
        sample_rate=16_000,
    )
    assert made["errors"] == []
    answers = [one for one in made["told"] if one["type"].startswith("Configure")]
    assert [one["type"] for one in answers] == ["ConfigureSuccess", "ConfigureFailure", "ConfigureSuccess"]
    assert answers[0]["keyterms"] == ["Godot", "Estragon"]
    assert answers[1]["code"] == "CONFIGURE_KEYTERM_LIMIT_EXCEEDED"
    assert answers[2].get("keyterms") is None
    assert house.engine.calls[-1].options.keyterms == ("Godot", "Estragon")
    assert made["told"][-1].get("warnings") is None


def test_too_many_keyterms_are_refused_before_the_upgrade(house):
    with pytest.raises(InvalidStatus) as caught, house.open("&keyterm=a&keyterm=b&keyterm=c&keyterm=d"):
        pass
    assert caught.value.response.status_code == 400


def test_a_full_house_says_when_to_come_again(house):
    with house.open() as one, house.open() as two, house.open() as three:
        with pytest.raises(InvalidStatus) as caught, house.open():
            pass
        assert caught.value.response.status_code == 429
        assert int(caught.value.response.headers["retry-after"]) >= 1
        for socket in (one, two, three):
            socket.send('{"type": "CloseStream"}')
            assert ending(socket)[1] == 1000
