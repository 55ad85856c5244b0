"""Moonshine's decoder as lean ONNX graphs, built from the weights of the model's own file.

The graph in the file recomputes its rotary embedding through some 900 small nodes a step, and
quantises activations with one scale per batch, so that a row's text depends on its neighbours.
Here a step is some 150 nodes, activations are quantised per row and block of 32
(`MatMulNBits`, accuracy level 4), and rows do not see each other. Architecture: Jeffries et al.
2024, "Moonshine" (arXiv:2410.15608), dimensions of the tiny model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.engines.ort_weights import OrtWeights, QuantizedMatrix
from voiceforge.speech.onnx.graph_builder import Dimension, GraphBuilder

MICROSOFT = "com.microsoft"
OPSETS = {"": 20, MICROSOFT: 1}

N_LAYERS = 6
N_HEADS = 8
HEAD_DIM = 36
PAST_DIM = 48  # a head in the decoder's past: GroupQueryAttention takes multiples of 16
WIDTH = N_HEADS * HEAD_DIM
FFN_WIDTH = 4 * WIDTH
MAX_POSITIONS = 512
ROTARY_DIM = 32  # int(HEAD_DIM * 0.9): Moonshine rotates nine tenths of a head
_ROTARY_BASE = 10_000.0
_BLOCK = 32  # inputs that share a quantisation scale in MatMulNBits
EPSILON = 1e-5


def cross_name(part: str, layer: int) -> str:
    """What the keys ("key") or values ("value") of a layer's cross-attention are called in both graphs."""
    return f"cross_{part}_{layer}"


def build_step(weights: OrtWeights) -> bytes:
    """Graph of one greedy decoder step over `rows` recordings at the same position.

    Inputs: `token` int64 (rows, 1); `last_position` int32 (rows,), where each token stands, and `length`
    int32 (), one more; `mask` float32 (rows, 1, 1, frames), 0 for frames that exist and a large negative
    number for padding; per layer the cross-attention keys and values and `past_key_<l>`, `past_value_<l>`
    (rows, N_HEADS, most_positions, PAST_DIM), of which the first `length` - 1 positions are read.
    Outputs: `next_token` int64 and `logprob` float32, both (rows, 1); `key_<l>`, `value_<l>`, the past with
    one position more: bound to the same memory as the past, nothing is copied.
    """
    return _StepGraph(weights).build()


def vocabulary_size(weights: OrtWeights) -> int:
    """How many tokens there are: rows of the embedding table."""
    return len(_embedding_table(weights).codes)


def _embedding_table(weights: OrtWeights) -> QuantizedMatrix:
    return QuantizedMatrix.named(weights.constants, "model.decoder.embed_tokens.weight_merged_0_quantized")


class _StepGraph:
    def __init__(self, weights: OrtWeights) -> None:
        self._weights = weights
        self._g = GraphBuilder("moonshine_decoder_step")

    def build(self) -> bytes:
        g = self._g
        g.input("token", "int64", ["rows", 1])
        g.input("last_position", "int32", ["rows"])
        g.input("length", "int32", [])
        g.input("mask", "float32", ["rows", 1, 1, "frames"])
        g.output("next_token", "int64", ["rows", 1])
        g.output("logprob", "float32", ["rows", 1])
        g.weight("heads_shape", np.array([0, N_HEADS, 1, HEAD_DIM], np.int64))
        g.weight("row_shape", np.array([0, 1, WIDTH], np.int64))
        g.weight("wide_heads_shape", np.array([0, 0, N_HEADS, PAST_DIM], np.int64))
        g.weight("first_dim", np.array([0], np.int64))
        g.weight("own_dims", np.array([HEAD_DIM], np.int64))
        g.weight("dims_axis", np.array([3], np.int64))
        g.weight("ffn_sizes", np.array([FFN_WIDTH] * 2, np.int64))
        angles = np.arange(MAX_POSITIONS)[:, None] / _ROTARY_BASE ** (
            np.arange(0, ROTARY_DIM, 2) / ROTARY_DIM
        )
        g.weight("cosines", np.cos(angles).astype(np.float32))
        g.weight("sines", np.sin(angles).astype(np.float32))

        residual = self._embedding()
        hidden = self._norm(residual, "layers.0.input_layernorm", "normed_in")
        for layer in range(N_LAYERS):
            hidden, residual = self._layer(layer, hidden, residual)
        logits = self._linear(hidden, "logits", "logits")
        # ArgMax would take twice as long: only this is vectorised.
        g.weight("one", np.array([1], np.int64))
        g.node("TopK", [logits, "one"], ["best_logit", "best"], attributes={"axis": -1})
        g.weight("token_shape", np.array([0, 1], np.int64))
        g.node("Reshape", ["best", "token_shape"], "next_token")
        g.weight("last_axis", np.array([-1], np.int64))
        # ReduceLogSumExp would take five times as long as LogSoftmax, which is vectorised.
        g.node("LogSoftmax", [logits], "logprobs", attributes={"axis": -1})
        g.node("ReduceMax", ["logprobs", "last_axis"], "logprob", attributes={"keepdims": 0})
        return g.to_bytes(OPSETS)

    def _layer(self, layer: int, hidden: str, residual: str) -> tuple[str, str]:
        g, p = self._g, f"layer{layer}_"
        attended = self._self_attention(layer, hidden)
        hidden, residual = self._add_and_norm(
            attended, residual, f"layers.{layer}.post_attention_layernorm", f"{p}after_self"
        )
        attended = self._cross_attention(layer, hidden)
        hidden, residual = self._add_and_norm(
            attended, residual, f"layers.{layer}.final_layernorm", f"{p}after_cross"
        )
        gated = self._linear(hidden, f"layers.{layer}/mlp/fc1", f"{p}ffn", self._bias(layer, "fc1"))
        g.node("Split", [gated, "ffn_sizes"], [f"{p}value_half", f"{p}gate_half"], attributes={"axis": -1})
        # QuickGelu with alpha 1 is x * sigmoid(x), the SiLU of Moonshine's gate.
        g.node("QuickGelu", [f"{p}gate_half"], f"{p}gate", domain=MICROSOFT, attributes={"alpha": 1.0})
        g.node("Mul", [f"{p}gate", f"{p}value_half"], f"{p}gated")
        out = self._linear(f"{p}gated", f"layers.{layer}/mlp/fc2", f"{p}ffn_out", self._bias(layer, "fc2"))
        following = "norm" if layer == N_LAYERS - 1 else f"layers.{layer + 1}.input_layernorm"
        return self._add_and_norm(out, residual, following, f"{p}out")

    def _self_attention(self, layer: int, hidden: str) -> str:
        """One operation turns queries and keys, and writes keys and values behind those of the past."""
        g, p, path = self._g, f"layer{layer}_self_", f"layers.{layer}/self_attn"
        shape: list[Dimension] = ["rows", N_HEADS, "most_positions", PAST_DIM]
        g.input(f"past_key_{layer}", "float32", shape)
        g.input(f"past_value_{layer}", "float32", shape)
        g.output(f"key_{layer}", "float32", shape)
        g.output(f"value_{layer}", "float32", shape)
        matrices = [self._weights.matrices[f"{path}/{x}_proj"] for x in "qkv"]
        qkv = self._product(hidden, matrices, f"{p}qkv", head_width=PAST_DIM)
        g.node(
            "GroupQueryAttention",
            [
                *(qkv, "", ""),
                *(f"past_key_{layer}", f"past_value_{layer}"),
                *("last_position", "length", "cosines", "sines"),
            ],
            # Nobody reads the scores. Who asks for them gets the plain algorithm; the tiled one, which
            # onnxruntime prefers, rounds otherwise, and words change.
            [f"{p}wide", f"key_{layer}", f"value_{layer}", f"{p}scores"],
            domain=MICROSOFT,
            attributes={
                "qk_output": 1,
                "num_heads": N_HEADS,
                "kv_num_heads": N_HEADS,
                "scale": HEAD_DIM**-0.5,
                "do_rotary": 1,
                "rotary_interleaved": 1,
            },
        )
        # Without what was added: zeros would shift the blocks in which the next product is quantised.
        g.node("Reshape", [f"{p}wide", "wide_heads_shape"], f"{p}wide_heads")
        g.node("Slice", [f"{p}wide_heads", "first_dim", "own_dims", "dims_axis"], f"{p}heads")
        g.node("Reshape", [f"{p}heads", "row_shape"], f"{p}row")
        return self._linear(f"{p}row", f"{path}/o_proj", f"{p}projected")

    def _cross_attention(self, layer: int, hidden: str) -> str:
        g, p = self._g, f"layer{layer}_cross_"
        key = g.input(cross_name("key", layer), "float32", ["rows", N_HEADS, HEAD_DIM, "frames"])
        value = g.input(cross_name("value", layer), "float32", ["rows", N_HEADS, "frames", HEAD_DIM])
        self._linear(hidden, f"layers.{layer}/encoder_attn/q_proj", f"{p}q")
        # One query per row: onnxruntime is three times quicker here where it need not scale the product.
        g.weight("query_scale", np.array(HEAD_DIM**-0.5, np.float32))
        g.node("Mul", [f"{p}q", "query_scale"], f"{p}q_scaled")
        g.node("Reshape", [f"{p}q_scaled", "heads_shape"], f"{p}q_heads")
        g.node("MatMul", [f"{p}q_heads", key], f"{p}raw_scores")
        g.node("Add", [f"{p}raw_scores", "mask"], f"{p}scores")
        g.node("Softmax", [f"{p}scores"], f"{p}weights", attributes={"axis": -1})
        g.node("MatMul", [f"{p}weights", value], f"{p}heads_out")
        g.node("Reshape", [f"{p}heads_out", "row_shape"], f"{p}row")
        return self._linear(f"{p}row", f"layers.{layer}/encoder_attn/o_proj", f"{p}projected")

    def _embedding(self) -> str:
        g = self._g
        table = _embedding_table(self._weights)
        g.weight("embedding_codes", table.codes)
        g.weight("embedding_scale", np.array(table.scale, np.float32))
        g.weight("embedding_zero_point", np.array(table.zero_point, np.uint8))
        g.node("Gather", ["embedding_codes", "token"], "embedded_codes", attributes={"axis": 0})
        return g.node(
            "DequantizeLinear", ["embedded_codes", "embedding_scale", "embedding_zero_point"], "embedded"
        )

    def _add_and_norm(self, x: str, residual: str, norm: str, prefix: str) -> tuple[str, str]:
        """(LayerNorm(x + residual), x + residual) in one fused operation."""
        total = f"{prefix}_total"
        normed = self._g.node(
            "SkipLayerNormalization",
            [x, residual, self._norm_weight(norm)],
            [f"{prefix}_normed", "", "", total],
            domain=MICROSOFT,
            attributes={"epsilon": EPSILON},
        )
        return normed, total

    def _norm(self, x: str, path: str, out: str) -> str:
        attributes = {"axis": -1, "epsilon": EPSILON}
        return self._g.node("LayerNormalization", [x, self._norm_weight(path)], out, attributes=attributes)

    def _norm_weight(self, path: str) -> str:
        return self._g.weight(
            f"{path}.weight", self._weights.constants[f"model.decoder.{path}.weight_merged_0"]
        )

    def _bias(self, layer: int, name: str) -> NDArray[np.float32]:
        bias: NDArray[np.float32] = self._weights.constants[
            f"model.decoder.layers.{layer}.mlp.{name}.bias_merged_0"
        ]
        return bias

    def _linear(self, x: str, path: str, out: str, bias: NDArray[np.float32] | None = None) -> str:
        matrix = self._weights.matrices[path]
        if bias is None:
            return self._product(x, [matrix], out)
        product = self._product(x, [matrix], f"{out}_product")
        return self._g.node("Add", [product, self._g.weight(f"{out}_bias", bias)], out)

    def _product(
        self, x: str, matrices: Sequence[QuantizedMatrix], out: str, head_width: int | None = None
    ) -> str:
        """x times the matrices side by side, 8-bit weights.

        Args:
            head_width: put zeros behind the HEAD_DIM columns of every head, so many in all.
        """
        g = self._g
        n_in = matrices[0].codes.shape[0]
        n_blocks = n_in // _BLOCK
        codes = np.concatenate([m.codes for m in matrices], axis=1)
        columns = [m.codes.shape[1] for m in matrices]
        scales = np.repeat(np.array([m.scale for m in matrices], np.float32), columns)
        zero_points = np.repeat(np.array([m.zero_point for m in matrices], np.uint8), columns)
        if head_width is not None:
            # What they would add is zero by its scale; by its codes alone it would be rounding errors.
            codes, scales, zero_points = (
                _with_wide_heads(part, head_width) for part in (codes, scales, zero_points)
            )
        n_out = codes.shape[1]
        # MatMulNBits wants codes (n_out, blocks, block) with one scale and zero point per block.
        g.weight(f"{out}_codes", codes.T.reshape(n_out, n_blocks, _BLOCK))
        g.weight(f"{out}_scales", np.repeat(scales, n_blocks))
        g.weight(f"{out}_zero_points", np.repeat(zero_points, n_blocks))
        return g.node(
            "MatMulNBits",
            [x, f"{out}_codes", f"{out}_scales", f"{out}_zero_points"],
            out,
            domain=MICROSOFT,
            attributes={"K": n_in, "N": n_out, "bits": 8, "block_size": _BLOCK, "accuracy_level": 4},
        )


def _with_wide_heads(array: NDArray[Any], width: int) -> NDArray[Any]:
    """The last dimension in heads of that width, zeros behind what each has."""
    heads = array.reshape(*array.shape[:-1], -1, HEAD_DIM)
    padding = [(0, 0)] * (heads.ndim - 1) + [(0, width - HEAD_DIM)]
    return np.pad(heads, padding).reshape(*array.shape[:-1], -1)
