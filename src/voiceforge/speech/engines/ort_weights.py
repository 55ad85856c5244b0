"""Reads the weights out of a model in ORT format (.ort, a flatbuffer): names and arrays, nothing is run.

Used where a model's own graph is too slow: its weights then go into a graph of ours. Field numbers are
those of onnxruntime's own schema (onnxruntime/core/flatbuffers/schema/ort.fbs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.errors import EngineFailed
from voiceforge.speech.onnx.flatbuffer import Table

_SESSION_MODEL, _MODEL_GRAPH = 1, 7
_GRAPH_INITIALIZERS, _GRAPH_NODES = 0, 2
_NODE_OP_TYPE, _NODE_INPUTS, _NODE_OUTPUTS, _NODE_ATTRIBUTES = 5, 8, 9, 10
_ATTRIBUTE_GRAPH = 7
_TENSOR_NAME, _TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_RAW_DATA = 0, 2, 3, 4

_DTYPES: dict[int, type[np.generic]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
}
# What comes of reading a damaged flatbuffer: offsets that lead anywhere.
_READING_ERRORS = (
    OSError,
    struct.error,
    ValueError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)
_QUANTIZED_MATMULS = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A weight matrix stored as uint8: value = (codes - zero_point) * scale.

    codes: uint8, shape (n_in, n_out).
    """

    codes: NDArray[np.uint8]
    scale: float
    zero_point: int

    @classmethod
    def named(cls, weights: dict[str, NDArray[Any]], quantized_name: str) -> QuantizedMatrix:
        """Put the three constants of one matrix together by onnxruntime's naming."""
        stem = quantized_name.removesuffix("_quantized")
        return cls(
            codes=weights[quantized_name],
            scale=float(weights[f"{stem}_scale"]),
            zero_point=int(weights[f"{stem}_zero_point"]),
        )


@dataclass(frozen=True, slots=True)
class OrtWeights:
    """constants: every initializer by its name. matrices: the quantised weight of each matrix
    product, keyed by the module path of its output without the root ("layers.0/self_attn/q_proj")."""

    constants: dict[str, NDArray[Any]]
    matrices: dict[str, QuantizedMatrix]


def read_ort_weights(path: Path, *, root: str) -> OrtWeights:
    """Read all weights of the model at `path`, those of sub-graphs included.

    Args:
        path: a file in ORT format.
        root: prefix that output names carry and keys should not ("/model/decoder/").

    Raises:
        EngineFailed: the file is not a readable ORT-format model.
    """
    try:
        model = Table.root(path.read_bytes()).table(_SESSION_MODEL)
        graph = model and model.table(_MODEL_GRAPH)
        if graph is None:
            raise ValueError("no graph")
        constants: dict[str, NDArray[Any]] = {}
        products: dict[str, str] = {}
        _collect(graph, root, constants, products)
        matrices = {key: QuantizedMatrix.named(constants, name) for key, name in products.items()}
    except _READING_ERRORS as error:
        raise EngineFailed("the model file is not a readable ORT-format model") from error
    return OrtWeights(constants, matrices)


def _collect(graph: Table, root: str, constants: dict[str, NDArray[Any]], products: dict[str, str]) -> None:
    """The constants of a graph and of the branches of its `If` nodes; for every matrix product with a fixed
    weight its module path and the name of that weight."""
    constants.update(_constants(graph))
    for node in graph.tables(_GRAPH_NODES):
        op = node.text(_NODE_OP_TYPE)
        if op in _QUANTIZED_MATMULS:
            # "/model/decoder/layers.0/mlp/fc1/Add_output_0" -> "layers.0/mlp/fc1"; "logits" stays
            output = node.texts(_NODE_OUTPUTS)[0]
            module = output.removeprefix(root).rpartition("/")[0] or output
            products[module] = node.texts(_NODE_INPUTS)[1]
        elif op == "If":
            for attribute in node.tables(_NODE_ATTRIBUTES):
                branch = attribute.table(_ATTRIBUTE_GRAPH)
                if branch is not None:
                    _collect(branch, root, constants, products)


def _constants(graph: Table) -> Iterator[tuple[str, NDArray[Any]]]:
    for tensor in graph.tables(_GRAPH_INITIALIZERS):
        dtype = _DTYPES.get(tensor.number(_TENSOR_DATA_TYPE))
        start, n_bytes = tensor.vector(_TENSOR_RAW_DATA)
        if dtype is None or n_bytes == 0:
            continue
        dims, n_dims = tensor.vector(_TENSOR_DIMS)
        shape = struct.unpack_from(f"<{n_dims}q", tensor.data, dims)
        # A view: the array keeps the file's bytes alive, and nothing is copied.
        flat = np.frombuffer(tensor.data, dtype, n_bytes // np.dtype(dtype).itemsize, start)
        yield tensor.text(_TENSOR_NAME), flat.reshape(shape)
