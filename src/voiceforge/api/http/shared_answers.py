"""What every route may answer, whatever it does itself: what stands around the routes refuses some requests.

It is added to the description of each, under the status that its surface has for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from voiceforge.api.http.errors import ErrorReplies
from voiceforge.errors import ErrorKind

_MEANINGS: Mapping[ErrorKind, str] = {
    ErrorKind.INVALID_REQUEST: "Something about the request is not as it should be, such as `Host`.",
    ErrorKind.UNAUTHENTICATED: "There is no key, or none that is valid.",
    ErrorKind.PERMISSION_DENIED: "The key may not do this, or the web page may not call this server.",
    ErrorKind.OVERLOADED: "Too much at a time; `Retry-After` says when to come again.",
    ErrorKind.UNAVAILABLE: "The server is stopping, or misses something; see `Retry-After`.",
}
_OF_BODIES: Mapping[ErrorKind, str] = {ErrorKind.TOO_LARGE: "The body is larger than the server takes."}
_WITH_BODY = frozenset({"post", "put", "patch"})


def add_shared_answers(schema: dict[str, Any], replies: ErrorReplies, exempt: Collection[str]) -> None:
    """
    Args:
        schema: an OpenAPI document, which is changed.
        exempt: paths that nothing is asked of.
    """
    paths = schema.get("paths", {})
    shapes = dict(_shapes(replies, {path: paths[path] for path in paths if path not in exempt}))
    for path, methods in paths.items():
        if path in exempt:
            continue
        shape = shapes.get(replies.surface_for(path).name, {})
        for method, operation in methods.items():
            for status, meaning in _answers(replies, path, method):
                operation["responses"].setdefault(status, {"description": meaning, **shape})


def _shapes(
    replies: ErrorReplies, paths: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """How each surface describes its errors already."""
    for path, methods in paths.items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status >= "400" and "$ref" in _schema_of(answer):
                    yield replies.surface_for(path).name, {"content": answer["content"]}


def _schema_of(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _answers(replies: ErrorReplies, path: str, method: str) -> Iterator[tuple[str, str]]:
    statuses = replies.surface_for(path).statuses
    meanings = {**_MEANINGS, **(_OF_BODIES if method in _WITH_BODY else {})}
    for kind, meaning in meanings.items():
        yield str(statuses[kind]), meaning
