"""Reads the constants out of an ONNX model: names and arrays, those of sub-graphs included.

Only the few fields of onnx.proto3 that lead there; the `onnx` package would take 31 MB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES: dict[int, type[np.generic]] = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_}

Field = tuple[int, int | memoryview]


def read_constants(model: bytes) -> dict[str, NDArray[Any]]:
    """Every initializer, and the output of every `Constant` node, by name. Views of `model`, not copies.

    Raises:
        ValueError: this is not an ONNX model.
    """
    try:
        graphs = [value for number, value in _fields(memoryview(model)) if number == 7]
        return dict(pair for graph in graphs for pair in _of_graph(_bytes(graph)))
    except (IndexError, struct.error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("not an ONNX model") from error


def _of_graph(graph: memoryview) -> Iterator[tuple[str, NDArray[Any]]]:
    for number, value in _fields(graph):
        if number == 5:
            yield from _named(_bytes(value))
        elif number == 1:
            yield from _of_node(_bytes(value))


def _of_node(node: memoryview) -> Iterator[tuple[str, NDArray[Any]]]:
    output = ""
    for number, value in _fields(node):
        if number == 2:
            output = output or _text(value)
        elif number == 5:  # an attribute: 5 a tensor, 6 a graph
            for inner, held in _fields(_bytes(value)):
                if inner == 5:
                    yield from ((output, array) for _name, array in _named(_bytes(held)))
                elif inner == 6:
                    yield from _of_graph(_bytes(held))


def _named(tensor: memoryview) -> Iterator[tuple[str, NDArray[Any]]]:
    """One tensor, if it is of a type that we use and holds its numbers as raw bytes."""
    shape: list[int] = []
    dtype: type[np.generic] | None = None
    name = ""
    raw: memoryview | None = None
    for number, value in _fields(tensor):
        if number == 1:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, int):
            dtype = _DTYPES.get(value)
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _bytes(value)
    if dtype is not None and raw is not None:
        yield name, np.frombuffer(raw, dtype).reshape(shape)


def _fields(message: memoryview) -> Iterator[Field]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                yield key >> 3, value
            case 2:
                length, at = _varint(message, at)
                if at + length > len(message):
                    raise ValueError("not an ONNX model")
                yield key >> 3, message[at : at + length]
                at += length
            case 1:
                at += 8
            case 5:
                at += 4
            case _:
                raise ValueError("not an ONNX model")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _packed(values: memoryview) -> list[int]:
    found, at = [], 0
    while at < len(values):
        value, at = _varint(values, at)
        found.append(value)
    return found


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("not an ONNX model")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode()
