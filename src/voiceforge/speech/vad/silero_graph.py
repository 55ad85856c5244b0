"""Silero's network as one graph that judges many frames in a call, from the weights of its own file.

The file's graph takes a frame at a time and spends half of that on choosing between its branches. Here the
spectrum and each convolution are one product over all frames, and only the LSTM goes frame by frame; the
probabilities are the same to 1e-5, and do not depend on which frames share a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.onnx.constants import read_constants
from voiceforge.speech.onnx.graph_builder import GraphBuilder

STATE_WIDTH = 128
FRAME_WITH_CONTEXT = 576

_BASIS = "stft.forward_basis_buffer"
_BASIS_SHAPE = (258, 1, 256)  # of the branch for 16 kHz; the one for 8 kHz has half of it
_BINS = 129
_HOP = 128
_STEPS = 4
"""Spectra of a frame."""
_STRIDES = (1, 2, 2, 1)
_OPSETS = {"": 18}


def build_silero(path: Path) -> bytes:
    """The graph for 16 kHz: `frames` float32 (n, 576), each with its 64 samples of context, and `hidden`
    and `cell` (1, 1, 128) → `probabilities` (n, 1), `hidden_out`, `cell_out`.

    Args:
        path: silero_vad.onnx, version 5.

    Raises:
        ValueError: the file holds another model.
    """
    weights = _weights(path)
    g = GraphBuilder("silero_frames")
    g.input("frames", "float32", ["n", FRAME_WITH_CONTEXT])
    for name in ("hidden", "cell"):
        g.input(name, "float32", [1, 1, STATE_WIDTH])
        g.output(f"{name}_out", "float32", [1, 1, STATE_WIDTH])
    g.output("probabilities", "float32", ["n", 1])

    g.node("Pad", ["frames", g.weight("pads", _ints(0, 0, 0, 64))], "padded", attributes={"mode": "reflect"})
    g.node("Reshape", ["padded", g.weight("hops_shape", _ints(0, -1, _HOP))], "hops")
    spectrum = _convolution(
        g,
        "hops",
        weights[_BASIS].reshape(2 * _BINS, 2, _HOP).swapaxes(1, 2),
        [[i, i + 1] for i in range(_STEPS)],
        "spectrum",
    )
    halves = g.weight("halves", _ints(_BINS, _BINS))
    g.node("Split", [spectrum, halves], ["real", "imaginary"], attributes={"axis": 1})
    g.node("Mul", ["real", "real"], "real_squared")
    g.node("Mul", ["imaginary", "imaginary"], "imaginary_squared")
    g.node("Add", ["real_squared", "imaginary_squared"], "power")
    x = g.node("Sqrt", ["power"], "magnitude")
    steps = _STEPS
    for i, stride in enumerate(_STRIDES):
        weight, bias = (weights[f"encoder.{i}.reparam_conv.{part}"] for part in ("weight", "bias"))
        # Nothing is heard before the first step of a frame and after its last.
        g.node("Reshape", [x, g.weight(f"steps_shape_{i}", _ints(-1, steps, weight.shape[1]))], f"steps_{i}")
        g.node("Pad", [f"steps_{i}", g.weight("around", _ints(0, 1, 0, 0, 1, 0))], f"padded_{i}")
        taken = [[first, first + 1, first + 2] for first in range(0, steps, stride)]
        convolved = _convolution(g, f"padded_{i}", weight, taken, f"convolved_{i}", bias)
        x = g.node("Relu", [convolved], f"encoded_{i}")
        steps = len(taken)
    g.node("Reshape", [x, g.weight("sequence_shape", _ints(-1, 1, STATE_WIDTH))], "sequence")
    lstm = [
        g.weight("lstm_input", _gates(weights["decoder.rnn.weight_ih"])[None]),
        g.weight("lstm_recurrent", _gates(weights["decoder.rnn.weight_hh"])[None]),
        g.weight(
            "lstm_bias",
            np.concatenate([_gates(weights[f"decoder.rnn.bias_{part}"]) for part in ("ih", "hh")])[None],
        ),
    ]
    g.node(
        "LSTM",
        ["sequence", *lstm, "", "hidden", "cell"],
        ["heard", "hidden_out", "cell_out"],
        attributes={"hidden_size": STATE_WIDTH},
    )
    g.node("Relu", ["heard"], "positive")
    g.node("Reshape", ["positive", g.weight("rows_shape", _ints(-1, STATE_WIDTH))], "rows")
    column = weights["decoder.decoder.2.weight"].reshape(1, STATE_WIDTH).T
    g.node("MatMul", ["rows", g.weight("out_weight", column)], "product")
    g.node("Add", ["product", g.weight("out_bias", weights["decoder.decoder.2.bias"])], "logit")
    g.node("Sigmoid", ["logit"], "probabilities")
    return g.to_bytes(_OPSETS)


def _convolution(
    g: GraphBuilder,
    x: str,
    kernel: NDArray[np.float32],
    taken: Sequence[Sequence[int]],
    out: str,
    bias: NDArray[np.float32] | None = None,
) -> str:
    """A convolution as one product over all frames: (n * len(taken), outputs). onnxruntime's own goes frame
    by frame, and takes four times as long over so few steps.

    Args:
        x: shape (n, steps, inputs).
        kernel: shape (outputs, inputs, width).
        taken: which steps each output is made of, `width` of them.
    """
    outputs, inputs, width = kernel.shape
    indices = g.weight(f"{out}_taken", np.array(taken, np.int64))
    g.node("Gather", [x, indices], f"{out}_windows", attributes={"axis": 1})
    shape = g.weight(f"{out}_rows_shape", _ints(-1, width * inputs))
    rows = g.node("Reshape", [f"{out}_windows", shape], f"{out}_rows")
    matrix = np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(width * inputs, outputs))
    terms = [rows, g.weight(f"{out}_weight", matrix)]
    if bias is not None:
        terms.append(g.weight(f"{out}_bias", bias))
    return g.node("Gemm", terms, out)


def _weights(path: Path) -> dict[str, NDArray[Any]]:
    """Those of the branch for 16 kHz, by their names in PyTorch."""
    constants = read_constants(path.read_bytes())
    branches = [
        name.removesuffix(_BASIS)
        for name, value in constants.items()
        if name.endswith(_BASIS) and value.shape == _BASIS_SHAPE
    ]
    if len(branches) != 1:
        raise ValueError("not version 5 of Silero VAD")
    branch = branches[0]
    found = {name.removeprefix(branch): value for name, value in constants.items() if name.startswith(branch)}
    needed = [
        *(f"encoder.{i}.reparam_conv.{part}" for i in range(len(_STRIDES)) for part in ("weight", "bias")),
        *(f"decoder.rnn.{kind}_{part}" for kind in ("weight", "bias") for part in ("ih", "hh")),
        *("decoder.decoder.2.weight", "decoder.decoder.2.bias"),
    ]
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"not version 5 of Silero VAD: no {missing[0]}")
    return found


def _gates(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """PyTorch stacks an LSTM's gates as input, forget, cell, output; ONNX as input, output, forget, cell."""
    i, f, c, o = np.split(weights, 4)
    return np.concatenate([i, o, f, c])


def _ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)
