"""Writes an ONNX model in memory: nodes, weights, inputs and outputs in, the bytes of a
ModelProto out.

Only the few fields that a graph of tensors needs, by the numbers of onnx.proto3 (onnx/onnx,
IR version 9). The `onnx` package would do the same and take 31 MB of the installation.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_IR_VERSION = 9
_ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9}
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_STRING, _ATTRIBUTE_INTS = 1, 2, 3, 7

Attribute = int | float | str | Sequence[int]
Dimension = int | str


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative int64 travel as their two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _chunk(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _attribute(name: str, value: Attribute) -> bytes:
    body = _chunk(1, name)
    if isinstance(value, bool | int):
        return body + _integer(3, value) + _integer(20, _ATTRIBUTE_INT)
    if isinstance(value, float):
        return body + _float(2, value) + _integer(20, _ATTRIBUTE_FLOAT)
    if isinstance(value, str):
        return body + _chunk(4, value) + _integer(20, _ATTRIBUTE_STRING)
    return body + b"".join(_integer(8, v) for v in value) + _integer(20, _ATTRIBUTE_INTS)


def _value_info(name: str, dtype: str, shape: Sequence[Dimension]) -> bytes:
    dims = b"".join(
        _chunk(1, _integer(1, d) if isinstance(d, int) else _chunk(2, d))  # dim_value or dim_param
        for d in shape
    )
    tensor_type = _integer(1, _ELEMENT_TYPES[dtype]) + _chunk(2, dims)
    return _chunk(1, name) + _chunk(2, _chunk(1, tensor_type))


class GraphBuilder:
    """Collects a graph node by node; names are the caller's.

    Weights stay where they are until `to_bytes` copies each once, into the model itself: nested
    messages joined the simple way would hold the model several times over while it is written.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[bytes] = []
        self._weights: dict[str, NDArray[np.generic]] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def input(self, name: str, dtype: str, shape: Sequence[Dimension]) -> str:
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[Dimension]) -> str:
        self._outputs.append(_value_info(name, dtype, shape))
        return name

    def weight(self, name: str, value: NDArray[np.generic]) -> str:
        """A constant of the graph; a name given twice must stand for the same value."""
        self._weights[name] = value
        return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: str | Sequence[str],
        *,
        domain: str = "",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> str:
        """Append one operation; returns its first output. An empty name leaves a slot unused."""
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        body = b"".join(_chunk(1, i) for i in inputs) + b"".join(_chunk(2, o) for o in names)
        body += _chunk(4, op)
        body += b"".join(_chunk(5, _attribute(k, v)) for k, v in (attributes or {}).items())
        self._nodes.append(body + (_chunk(7, domain) if domain else b""))
        return names[0]

    def to_bytes(self, opsets: Mapping[str, int]) -> bytes:
        """Serialise; `opsets` maps each operator domain ("" is ONNX's own) to its version."""
        small = b"".join(_chunk(1, n) for n in self._nodes) + _chunk(2, self._name)
        small += b"".join(_chunk(11, i) for i in self._inputs)
        small += b"".join(_chunk(12, o) for o in self._outputs)
        weights: list[bytes | memoryview] = []
        for name, value in self._weights.items():
            weights += self._weight_head(name, value), np.ascontiguousarray(value).reshape(-1).data.cast("B")
        graph_bytes = len(small) + sum(map(len, weights))
        model = _integer(1, _IR_VERSION)
        for domain, version in opsets.items():
            model += _chunk(8, _chunk(1, domain) + _integer(2, version))
        return b"".join([model, _varint(7 << 3 | 2), _varint(graph_bytes), small, *weights])

    @staticmethod
    def _weight_head(name: str, value: NDArray[np.generic]) -> bytes:
        """Everything of an initializer up to its raw data, which must follow."""
        body = b"".join(_integer(1, d) for d in value.shape)
        body += _integer(2, _ELEMENT_TYPES[value.dtype.name]) + _chunk(8, name)
        body += _varint(9 << 3 | 2) + _varint(value.nbytes)
        return _varint(5 << 3 | 2) + _varint(len(body) + value.nbytes) + body
