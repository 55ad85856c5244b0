"""Reads the weights out of a model in ORT format (.ort, a flatbuffer): names and arrays, nothing is run.

Used where a model's own graph is too slow: its weights then go into a graph of ours. The schema
classes come with onnxruntime itself (onnxruntime/tools/ort_format_model).
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
from voiceforge.speech.onnx.runtime import onnxruntime

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
    AttributeError,
    TypeError,
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
    onnxruntime()  # first of all: what is imported next imports the rest of it
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    try:
        session = InferenceSession.GetRootAsInferenceSession(bytearray(path.read_bytes()), 0)
        constants: dict[str, NDArray[Any]] = {}
        products: dict[str, str] = {}
        _collect(session.Model().Graph(), root, constants, products)
        matrices = {key: QuantizedMatrix.named(constants, name) for key, name in products.items()}
    except _READING_ERRORS as error:
        raise EngineFailed("the model file is not a readable ORT-format model") from error
    return OrtWeights(constants, matrices)


def _collect(graph: Any, root: str, constants: dict[str, NDArray[Any]], products: dict[str, str]) -> None:
    """The constants of a graph and of the branches of its `If` nodes; for every matrix product with a fixed
    weight its module path and the name of that weight. One pass: flatbuffers are slow to read in Python.
    """
    constants.update(_constants(graph))
    for i in range(graph.NodesLength()):
        node = graph.Nodes(i)
        op = node.OpType().decode()
        if op in _QUANTIZED_MATMULS:
            # "/model/decoder/layers.0/mlp/fc1/Add_output_0" -> "layers.0/mlp/fc1"; "logits" stays
            output = node.Outputs(0).decode()
            products[output.removeprefix(root).rpartition("/")[0] or output] = node.Inputs(1).decode()
        elif op == "If":
            for j in range(node.AttributesLength()):
                branch = node.Attributes(j).G()
                if branch is not None:
                    _collect(branch, root, constants, products)


def _constants(graph: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    for i in range(graph.InitializersLength()):
        tensor = graph.Initializers(i)
        dtype = _DTYPES.get(tensor.DataType())
        if dtype is None or tensor.RawDataLength() == 0:
            continue
        shape = [tensor.Dims(j) for j in range(tensor.DimsLength())]
        # A view: the array keeps the file's bytes alive, and nothing is copied.
        yield tensor.Name().decode(), tensor.RawDataAsNumpy().view(dtype).reshape(shape)
