"""What clients say on the socket besides audio."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

_MOST_KEYTERMS = 1000
_MOST_QUOTED_CHARS = 500


@dataclass(frozen=True, slots=True)
class Plain:
    """A message that says no more than its type."""

    type: Literal["KeepAlive", "Finalize", "CloseStream"]


@dataclass(frozen=True, slots=True)
class Configure:
    """keyterms: None: they stay as they are. features: switched on and off, by name."""

    keyterms: tuple[str, ...] | None
    features: dict[str, bool]


@dataclass(frozen=True, slots=True)
class Misunderstood:
    """why: for people. quoted: the beginning of what was said."""

    why: str
    quoted: str


ClientMessage = Plain | Configure | Misunderstood


def read_message(text: str) -> ClientMessage:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return _misunderstood("it is not JSON", text)
    if not isinstance(document, dict):
        return _misunderstood("it is not a JSON object", text)
    match document.get("type"):
        case "KeepAlive" | "Finalize" | "CloseStream" as kind:
            return Plain(kind)
        case "Configure":
            return _configure(document, text)
        case _:
            known = "KeepAlive, Finalize, CloseStream, Configure"
            return _misunderstood(f"its type is none of {known}", text)


def _configure(document: dict[str, object], text: str) -> ClientMessage:
    keyterms, features = document.get("keyterms"), document.get("features")
    if keyterms is not None and not (
        isinstance(keyterms, list)
        and len(keyterms) <= _MOST_KEYTERMS
        and all(isinstance(term, str) for term in keyterms)
    ):
        return _misunderstood(f"keyterms is a list of at most {_MOST_KEYTERMS} texts", text)
    if features is not None and not (
        isinstance(features, dict) and all(isinstance(value, bool) for value in features.values())
    ):
        return _misunderstood("features is an object of true and false", text)
    return Configure(
        None if keyterms is None else tuple(term.strip() for term in keyterms if term.strip()),
        dict(features or {}),
    )


def _misunderstood(why: str, text: str) -> Misunderstood:
    return Misunderstood(f"The message was not understood: {why}.", text[:_MOST_QUOTED_CHARS])
