"""What a log line holds, and what it never does."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.logs import MASK, SPOKEN_KEYS, configure_logging, log_context
from voiceforge.telemetry.logs_later import configure_logging_later


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    names = ("", "voiceforge", "uvicorn", "uvicorn.error", "uvicorn.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().rstrip("\n").split("\n")]


def test_all_ways_to_log_give_the_same_json() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    Logger("voiceforge.a").info("model loaded", model="m", seconds=1.5)
    structlog.get_logger("voiceforge.a").info("model loaded", model="m", seconds=1.5)
    logging.getLogger("voiceforge.a").info("model %s", "loaded", extra={"model": "m", "seconds": 1.5})
    first, second, third = lines(stream)
    assert first.pop("timestamp").endswith("Z")
    second.pop("timestamp")
    third.pop("timestamp")
    assert first == second == third
    assert first == {
        "event": "model loaded",
        "model": "m",
        "seconds": 1.5,
        "level": "info",
        "logger": "voiceforge.a",
    }


def test_a_value_may_be_called_as_something_that_every_line_has() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    Logger("voiceforge").warning("ended", name="n", process=7, message="m", level="high")
    [line] = lines(stream)
    assert (line["event"], line["name"], line["process"], line["message"]) == ("ended", "n", 7, "m")
    assert line["level"] == "warning"


def test_a_process_that_logs_nothing_sets_nothing_up(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging_later("warning", "json")
    log = Logger("voiceforge.later")
    log.info("too quiet")
    log.warning("first", n=1)
    logging.getLogger("httpx").warning("second")
    log.info("still too quiet")
    written = [json.loads(line) for line in capsys.readouterr().err.rstrip("\n").split("\n")]
    assert [(line["event"], line.get("n")) for line in written] == [("first", 1), ("second", None)]


def test_auto_writes_json_unless_a_terminal_reads_it() -> None:
    file, terminal = io.StringIO(), Terminal()
    configure_logging("info", "auto", file)
    Logger("voiceforge").info("hello")
    configure_logging("info", "auto", terminal)
    Logger("voiceforge").info("hello")
    assert lines(file)[0]["event"] == "hello"
    assert "hello" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_configuring_again_replaces_the_first_stream() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", "json", first)
    configure_logging("info", "json", second)
    logging.getLogger("voiceforge").info("once")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


def test_level_applies_to_us_and_other_libraries_are_heard_from_warnings_up() -> None:
    stream = io.StringIO()
    configure_logging("debug", "json", stream)
    Logger("voiceforge.x").debug("ours")
    logging.getLogger("httpx").info("GET https://example/?token=abc")
    logging.getLogger("httpx").warning("slow")
    configure_logging("error", "json", stream)
    Logger("voiceforge.x").warning("too quiet")
    assert [line["event"] for line in lines(stream)] == ["ours", "slow"]


def test_the_server_logs_through_us() -> None:
    import uvicorn

    stream = io.StringIO()
    uvicorn.Config("nothing:app")  # installs the handlers of uvicorn
    configure_logging("info", "json", stream)
    logging.getLogger("uvicorn.error").info("Started server", extra={"color_message": "Started"})
    logging.getLogger("uvicorn.access").info('%s - "%s %s"', "127.0.0.1:1", "GET", "/?api_key=abc&x=1")
    assert "color_message" not in stream.getvalue()
    assert [line["event"] for line in lines(stream)] == [
        "Started server",
        f'127.0.0.1:1 - "GET /?api_key={MASK}&x=1"',
    ]


def test_context_is_on_every_line_inside_and_on_none_after() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    with log_context(request_id="r1"):
        Logger("voiceforge").info("a")
        logging.getLogger("uvicorn.error").info("b")
    Logger("voiceforge").info("c")
    assert [line.get("request_id") for line in lines(stream)] == ["r1", "r1", None]


@pytest.mark.parametrize("style", ["json", "pretty"])
@pytest.mark.parametrize("key", sorted(SPOKEN_KEYS))
def test_what_was_spoken_is_withheld_at_any_depth(style: Any, key: str) -> None:
    stream = io.StringIO()
    configure_logging("info", style, stream)
    log = Logger("voiceforge")
    log.info("done", **{key: "the quick brown fox"})
    log.info("done", result={"parts": [{key: ["the quick brown fox"]}]})
    logging.getLogger("voiceforge").info("done", extra={key: "the quick brown fox"})
    assert "fox" not in stream.getvalue()
    assert stream.getvalue().count("withheld") == 3


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_a_traceback_shows_no_local_variables(style: Any) -> None:
    stream = io.StringIO()
    configure_logging("info", style, stream)

    def decode() -> None:
        heard = "the quick brown " + "fox"
        raise RuntimeError(f"failed on {len(heard)} letters")

    for log in (Logger("voiceforge"), logging.getLogger("voiceforge")):
        try:
            decode()
        except RuntimeError:
            log.exception("broken")
    assert stream.getvalue().count("failed on 19 letters") == 2
    assert "brown fox" not in stream.getvalue()


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_secrets_are_masked_by_key_and_inside_text(style: Any) -> None:
    stream = io.StringIO()
    configure_logging("info", style, stream)
    log = Logger("voiceforge")
    log.info(
        "a",
        api_key="hush1234",
        headers={"Authorization": "hush1234", "Accept": "x"},
        parts=["Bearer hush1234"],
    )
    log.info("sent Bearer hush1234 to https://ada:hush1234@example/v1?signature=hush1234")
    try:
        raise ValueError("rejected: Bearer hush1234")
    except ValueError:
        log.exception("b")
    assert "hush" not in stream.getvalue()
    assert "example/v1" in stream.getvalue()


LOGGED = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(
        [
            "Bearer abcd1234",
            "token\vabcdef",
            "http://h/?key=abc",
            "https://me:word@host/",
            [],
            ["Basic abcd1234"],
            {"text": "said", "api_key": "k"},
            {},
        ]
    ),
)
KEYS = st.sampled_from(
    ["route", "status", "text", "Transcript", "api_key", "PassWord", "errors", "request_id", "cookies", "n"]
)


@given(st.dictionaries(KEYS, LOGGED, max_size=6))
def test_all_ways_to_log_keep_to_the_same_rules_whatever_is_logged(values: dict[str, Any]) -> None:
    """Our own lines mostly take a shorter way."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    Logger("voiceforge.a").info("something happened", **values)
    logging.getLogger("voiceforge.a").info("something happened", extra=values)
    first, second = lines(stream)
    del first["timestamp"], second["timestamp"]
    assert first == second


def test_an_exception_is_told_without_its_secrets_either_way() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    try:
        raise ValueError("https://me:word@host/ failed")
    except ValueError:
        Logger("voiceforge").exception("it failed")
        logging.getLogger("voiceforge").exception("it failed")
    for line in lines(stream):
        assert (line["event"], line["level"]) == ("it failed", "error")
        assert "ValueError" in line["exception"]
        assert "word" not in line["exception"]
