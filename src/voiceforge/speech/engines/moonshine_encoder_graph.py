"""Moonshine's encoder as a lean ONNX graph, built from the weights of the model's own file.

Audio goes in, the keys and values of the decoder's cross-attention come out. Every number is computed as
the file's own graph computes it, to the last bit, in half as many steps of half the cost: that graph turns
queries and keys through slices and joins, pads every head, masks nothing, and keeps its weights as uint8.
As int8 they are the same numbers, and CPUs with instructions for uint8 x int8 multiply them four times as
fast. One recording at a time: activations are quantised with one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.engines.moonshine_graph import (
    EPSILON,
    HEAD_DIM,
    MICROSOFT,
    N_HEADS,
    N_LAYERS,
    OPSETS,
    ROTARY_DIM,
    WIDTH,
    cross_name,
)
from voiceforge.speech.engines.ort_weights import OrtWeights, QuantizedMatrix
from voiceforge.speech.onnx.graph_builder import GraphBuilder

_CONVOLUTIONS = ((127, 64), (7, 3), (3, 2))
"""(kernel, stride) of each, over time. No padding."""
_MAX_FRAMES = 1280
"""30.9 s: the longest window and the silence around it."""
# Weights without a module's name in the file: the exporter numbered them.
_GROUP_NORM_WEIGHT, _GROUP_NORM_BIAS = "onnx::Mul_2080", "onnx::Add_2081"
_INVERSE_FREQUENCIES = "onnx::Expand_202"


def frames_of(n_samples: int) -> int:
    """How many frames the encoder makes of so many samples."""
    for kernel, stride in _CONVOLUTIONS:
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


def build_encoder(encoder: OrtWeights, decoder: OrtWeights, *, signed: bool) -> bytes:
    """Graph: audio -> keys and values of every layer's cross-attention.

    Inputs: `audio` float32 (1, samples), 16 kHz mono; `missing` int64 (1,), how many frames of zeros come
    after those of the audio. Outputs, float32, by `cross_name`: keys (1, N_HEADS, HEAD_DIM, frames), values
    (1, N_HEADS, frames, HEAD_DIM).

    Args:
        encoder: weights of the encoder's file, read with root "/".
        decoder: weights of the decoder's file.
        signed: multiply by int8. Exact, but not on x86 CPUs without VNNI: there onnxruntime adds products
            of uint8 x int8 in 16 bits, which overflow.
    """
    return _EncoderGraph(encoder, decoder, signed).build()


class _EncoderGraph:
    def __init__(self, encoder: OrtWeights, decoder: OrtWeights, signed: bool) -> None:
        self._weights = encoder
        self._decoder = decoder
        self._signed = signed
        self._g = GraphBuilder("moonshine_encoder")

    def build(self) -> bytes:
        g = self._g
        g.input("audio", "float32", [1, "samples"])
        g.input("missing", "int64", [1])
        g.weight("heads_shape", np.array([0, 0, N_HEADS, HEAD_DIM], np.int64))
        g.weight("row_shape", np.array([0, 0, WIDTH], np.int64))
        g.weight("zero", np.array([0], np.int64))
        residual = self._front_end()
        self._angles(residual)
        hidden = self._norm(residual, "layers.0.input_layernorm", "normed_in")
        for layer in range(N_LAYERS):
            hidden, residual = self._layer(layer, hidden, residual)
        self._cross_attention(hidden)
        return g.to_bytes(OPSETS)

    def _front_end(self) -> str:
        """Three convolutions; the first is normalised over the whole window."""
        g, constants = self._g, self._weights.constants
        g.weight("channel_axis", np.array([1], np.int64))
        g.node("Unsqueeze", ["audio", "channel_axis"], "channel")
        g.node("Tanh", [self._convolution("channel", 1)], "tanh")
        # GroupNorm of one group is InstanceNormalization of one channel.
        g.weight("one_channel", np.array([0, 1, -1], np.int64))
        g.weight("unit", np.ones(1, np.float32))
        g.weight("nothing", np.zeros(1, np.float32))
        g.node("Reshape", ["tanh", "one_channel"], "flat")
        g.node(
            "InstanceNormalization",
            ["flat", "unit", "nothing"],
            "flat_normed",
            attributes={"epsilon": EPSILON},
        )
        g.node("Shape", ["tanh"], "tanh_shape")
        g.node("Reshape", ["flat_normed", "tanh_shape"], "normed")
        g.node("Mul", ["normed", g.weight("group_weight", constants[_GROUP_NORM_WEIGHT])], "group_scaled")
        g.node("Add", ["group_scaled", g.weight("group_bias", constants[_GROUP_NORM_BIAS])], "conv1")
        g.node("Gelu", [self._convolution("conv1", 2)], "conv2")
        g.node("Gelu", [self._convolution("conv2", 3)], "conv3")
        return g.node("Transpose", ["conv3"], "frames", attributes={"perm": [0, 2, 1]})

    def _convolution(self, x: str, number: int) -> str:
        g, constants = self._g, self._weights.constants
        kernel, stride = _CONVOLUTIONS[number - 1]
        inputs = [x, g.weight(f"conv{number}.weight", constants[f"conv{number}.weight_add_tensor"])]
        if number > 1:
            inputs.append(g.weight(f"conv{number}.bias", constants[f"conv{number}.bias"]))
        attributes = {"kernel_shape": [kernel], "strides": [stride]}
        return g.node("Conv", inputs, f"conv{number}_product", attributes=attributes)

    def _angles(self, frames: str) -> None:
        """`cosines` and `sines`, (n_frames, 1, HEAD_DIM), by which a head and its swapped self are multiplied
        to turn it; the last dimensions stay as they are. onnxruntime computes both tables, once."""
        g = self._g
        frequencies = self._weights.constants[_INVERSE_FREQUENCIES].reshape(1, -1)
        angles = np.zeros((_MAX_FRAMES, 1, HEAD_DIM), np.float32)
        positions = np.arange(_MAX_FRAMES, dtype=np.float32)[:, None]
        angles[:, 0, :ROTARY_DIM] = np.repeat(positions * frequencies, 2, axis=1)
        signs = np.zeros(HEAD_DIM, np.float32)
        signs[0:ROTARY_DIM:2], signs[1:ROTARY_DIM:2] = -1, 1
        g.weight("angles", angles)
        g.weight("signs", signs)
        g.node("Cos", ["angles"], "all_cosines")
        g.node("Sin", ["angles"], "plain_sines")
        g.node("Mul", ["plain_sines", "signs"], "all_sines")
        g.node("Shape", [frames], "n_frames", attributes={"start": 1, "end": 2})
        for table in ("cosines", "sines"):
            g.node("Slice", [f"all_{table}", "zero", "n_frames", "zero"], table)

    def _layer(self, layer: int, hidden: str, residual: str) -> tuple[str, str]:
        g, p, path = self._g, f"layer{layer}_", f"layers.{layer}"
        attended = self._self_attention(layer, hidden)
        hidden, residual = self._add_and_norm(
            attended, residual, f"{path}.post_attention_layernorm", f"{p}after_self"
        )
        constants = self._weights.constants
        wide = self._linear(hidden, f"{path}/mlp/fc1", f"{p}ffn", constants[f"{path}.mlp.fc1.bias"])
        g.node("Gelu", [wide], f"{p}ffn_gelu")
        out = self._linear(
            f"{p}ffn_gelu", f"{path}/mlp/fc2", f"{p}ffn_out", constants[f"{path}.mlp.fc2.bias"]
        )
        if layer == N_LAYERS - 1:
            return self._last_norm(out, residual), ""
        return self._add_and_norm(out, residual, f"layers.{layer + 1}.input_layernorm", f"{p}out")

    def _self_attention(self, layer: int, hidden: str) -> str:
        g, p, path = self._g, f"layer{layer}_self_", f"layers.{layer}/self_attn"
        x = self._quantized(hidden, f"{p}in")
        for part in "qk":
            matrix = self._weights.matrices[f"{path}/{part}_proj"]
            heads = self._heads(x, matrix, f"{p}{part}")
            swapped = self._heads(x, _pairs_swapped(matrix), f"{p}{part}_swapped")
            g.node("Mul", [heads, "cosines"], f"{p}{part}_cosine")
            g.node("Mul", [swapped, "sines"], f"{p}{part}_sine")
            g.node("Add", [f"{p}{part}_cosine", f"{p}{part}_sine"], f"{p}{part}_turned")
        self._heads(x, self._weights.matrices[f"{path}/v_proj"], f"{p}v")
        for part in (f"{p}q_turned", f"{p}k_turned", f"{p}v"):
            g.node("Transpose", [part], f"{part}_rows", attributes={"perm": [0, 2, 1, 3]})
        g.node(
            "FusedMatMul",
            [f"{p}q_turned_rows", f"{p}k_turned_rows"],
            f"{p}scores",
            domain=MICROSOFT,
            attributes={"transB": 1, "alpha": HEAD_DIM**-0.5},
        )
        g.node("Softmax", [f"{p}scores"], f"{p}weights", attributes={"axis": -1})
        g.node("MatMul", [f"{p}weights", f"{p}v_rows"], f"{p}sum")
        g.node("Transpose", [f"{p}sum"], f"{p}sum_heads", attributes={"perm": [0, 2, 1, 3]})
        g.node("Reshape", [f"{p}sum_heads", "row_shape"], f"{p}sum_row")
        return self._linear(f"{p}sum_row", f"{path}/o_proj", f"{p}projected")

    def _cross_attention(self, states: str) -> None:
        g = self._g
        g.weight("frame_axis", np.array([1], np.int64))
        g.node("Concat", ["zero", "missing"], "padding", attributes={"axis": 0})
        # Frames of zeros change no scale, and their keys and values are zero.
        g.node("Pad", [states, "padding", "", "frame_axis"], "states")
        x = self._quantized("states", "states")
        for layer in range(N_LAYERS):
            for part, order in (("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
                name = cross_name(part, layer)
                matrix = self._decoder.matrices[f"layers.{layer}/encoder_attn/{part[0]}_proj"]
                heads = self._heads(x, matrix, f"{name}_frames")
                g.node("Transpose", [heads], name, attributes={"perm": order})
                g.output(name, "float32", [1, N_HEADS, *_cross_shape(part)])

    def _norm(self, x: str, path: str, out: str) -> str:
        weight = self._g.weight(f"{path}.weight", self._weights.constants[f"{path}.weight"])
        attributes = {"axis": -1, "epsilon": EPSILON}
        return self._g.node("LayerNormalization", [x, weight], out, attributes=attributes)

    def _add_and_norm(self, x: str, residual: str, norm: str, prefix: str) -> tuple[str, str]:
        """(LayerNorm(x + residual), x + residual); the fused operation takes five times as long."""
        total = self._g.node("Add", [residual, x], f"{prefix}_total")
        return self._norm(total, norm, f"{prefix}_normed"), total

    def _last_norm(self, x: str, residual: str) -> str:
        """The one that is fused in the file, and rounds otherwise."""
        weight = self._g.weight("layer_norm.weight", self._weights.constants["layer_norm.weight"])
        return self._g.node(
            "SkipLayerNormalization",
            [residual, x, weight],
            "last",
            domain=MICROSOFT,
            attributes={"epsilon": EPSILON},
        )

    def _quantized(self, x: str, prefix: str) -> list[str]:
        """x as uint8, its scale and its zero point, for several products."""
        names = [f"{prefix}_codes", f"{prefix}_scale", f"{prefix}_zero_point"]
        self._g.node("DynamicQuantizeLinear", [x], names)
        return names

    def _heads(self, x: Sequence[str], matrix: QuantizedMatrix, out: str) -> str:
        """The product of what `_quantized` made, (1, frames, N_HEADS, HEAD_DIM)."""
        codes, scale, zero_point = x
        w_codes, w_scale, w_zero_point = self._matrix(matrix, f"{out}_weight")
        self._g.node(
            "MatMulIntegerToFloat",
            [codes, w_codes, scale, w_scale, zero_point, w_zero_point],
            f"{out}_row",
            domain=MICROSOFT,
        )
        return self._g.node("Reshape", [f"{out}_row", "heads_shape"], out)

    def _linear(self, x: str, path: str, out: str, bias: NDArray[np.float32] | None = None) -> str:
        inputs = [x, *self._matrix(self._weights.matrices[path], f"{out}_weight")]
        if bias is not None:
            inputs.append(self._g.weight(f"{out}_bias", bias))
        return self._g.node("DynamicQuantizeMatMul", inputs, out, domain=MICROSOFT)

    def _matrix(self, matrix: QuantizedMatrix, name: str) -> list[str]:
        """Names of its codes, its scale and its zero point."""
        codes: NDArray[np.generic] = matrix.codes
        zero_point: NDArray[np.generic] = np.array(matrix.zero_point, np.uint8)
        if self._signed:
            # 128 less in both; flipping the highest bit is that.
            codes = (matrix.codes ^ np.uint8(128)).view(np.int8)
            zero_point = np.array(matrix.zero_point - 128, np.int8)
        g = self._g
        return [
            g.weight(f"{name}_codes", codes),
            g.weight(f"{name}_scale", np.array(matrix.scale, np.float32)),
            g.weight(f"{name}_zero_point", zero_point),
        ]


def _pairs_swapped(matrix: QuantizedMatrix) -> QuantizedMatrix:
    """The matrix whose product has the dimensions that are turned together, 0 and 1, 2 and 3, … of each
    head, exchanged. To multiply twice takes less time than to exchange them in the product."""
    columns = np.arange(WIDTH)
    turned = columns % HEAD_DIM < ROTARY_DIM
    return replace(matrix, codes=matrix.codes[:, np.where(turned, columns ^ 1, columns)])


def _cross_shape(part: str) -> list[int | str]:
    return [HEAD_DIM, "frames"] if part == "key" else ["frames", HEAD_DIM]
