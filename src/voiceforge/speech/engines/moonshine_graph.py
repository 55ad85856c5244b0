"""Moonshine's decoder as lean ONNX graphs, built from the weights of the model's own file.

The graph in the file recomputes its rotary embedding through some 900 small nodes a step, and
quantises activations with one scale per batch, so that a row's text depends on its neighbours.
Here a step is some 200 nodes, activations are quantised per row and block of 32
(`MatMulNBits`, accuracy level 4), and rows do not see each other. Architecture: Jeffries et al.
2024, "Moonshine" (arXiv:2410.15608), dimensions of the tiny model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.engines.ort_weights import OrtWeights, QuantizedMatrix
from voiceforge.speech.onnx.graph_builder import Dimension, GraphBuilder

MICROSOFT = "com.microsoft"
OPSETS = {"": 20, MICROSOFT: 1}

N_LAYERS = 6
N_HEADS = 8
HEAD_DIM = 36
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

    Inputs: `token` int64 (rows, 1); `position` int64 (1,); `mask` float32 (rows, 1, 1, frames), 0
    for frames that exist and a large negative number for padding; per layer the cross-attention
    keys and values and `past_key_<l>`, `past_value_<l>` (rows, N_HEADS, position, HEAD_DIM).
    Outputs: `next_token` int64 and `logprob` float32, both (rows, 1); `key_<l>`, `value_<l>`, one
    position longer than the past.
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
        g.input("position", "int64", [1])
        g.input("mask", "float32", ["rows", 1, 1, "frames"])
        g.output("next_token", "int64", ["rows", 1])
        g.output("logprob", "float32", ["rows", 1])
        g.weight("heads_shape", np.array([0, N_HEADS, 1, HEAD_DIM], np.int64))
        g.weight("row_shape", np.array([0, 1, WIDTH], np.int64))
        g.weight("qkv_sizes", np.array([WIDTH] * 3, np.int64))
        g.weight("ffn_sizes", np.array([FFN_WIDTH] * 2, np.int64))
        angles = np.arange(MAX_POSITIONS)[:, None] / _ROTARY_BASE ** (
            np.arange(0, ROTARY_DIM, 2) / ROTARY_DIM
        )
        g.weight("cosines", np.cos(angles).astype(np.float32))
        g.weight("sines", np.sin(angles).astype(np.float32))

        residual = self._embedding()
        hidden = g.node(
            "LayerNormalization",
            [residual, self._norm_weight("layers.0.input_layernorm")],
            "normed_in",
            attributes={"axis": -1, "epsilon": EPSILON},
        )
        for layer in range(N_LAYERS):
            hidden, residual = self._layer(layer, hidden, residual)
        logits = self._linear(hidden, ["logits"], "logits")
        g.node("ArgMax", [logits], "next_token", attributes={"axis": -1, "keepdims": 0})
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
        gated = self._linear(hidden, [f"layers.{layer}/mlp/fc1"], f"{p}ffn", self._bias(layer, "fc1"))
        g.node("Split", [gated, "ffn_sizes"], [f"{p}value_half", f"{p}gate_half"], attributes={"axis": -1})
        # QuickGelu with alpha 1 is x * sigmoid(x), the SiLU of Moonshine's gate.
        g.node("QuickGelu", [f"{p}gate_half"], f"{p}gate", domain=MICROSOFT, attributes={"alpha": 1.0})
        g.node("Mul", [f"{p}gate", f"{p}value_half"], f"{p}gated")
        out = self._linear(f"{p}gated", [f"layers.{layer}/mlp/fc2"], f"{p}ffn_out", self._bias(layer, "fc2"))
        following = "norm" if layer == N_LAYERS - 1 else f"layers.{layer + 1}.input_layernorm"
        return self._add_and_norm(out, residual, following, f"{p}out")

    def _self_attention(self, layer: int, hidden: str) -> str:
        g, p = self._g, f"layer{layer}_self_"
        past_shape: list[Dimension] = ["rows", N_HEADS, "past", HEAD_DIM]
        g.input(f"past_key_{layer}", "float32", past_shape)
        g.input(f"past_value_{layer}", "float32", past_shape)
        g.output(f"key_{layer}", "float32", ["rows", N_HEADS, "now", HEAD_DIM])
        g.output(f"value_{layer}", "float32", ["rows", N_HEADS, "now", HEAD_DIM])
        qkv = self._linear(hidden, [f"layers.{layer}/self_attn/{x}_proj" for x in "qkv"], f"{p}qkv")
        g.node("Split", [qkv, "qkv_sizes"], [f"{p}q", f"{p}k", f"{p}v"], attributes={"axis": -1})
        for part in "qk":
            g.node(
                "RotaryEmbedding",
                [f"{p}{part}", "position", "cosines", "sines"],
                f"{p}{part}_rotated",
                domain=MICROSOFT,
                attributes={"interleaved": 1, "num_heads": N_HEADS, "rotary_embedding_dim": ROTARY_DIM},
            )
            g.node("Reshape", [f"{p}{part}_rotated", "heads_shape"], f"{p}{part}_heads")
        g.node("Reshape", [f"{p}v", "heads_shape"], f"{p}v_heads")
        g.node("Concat", [f"past_key_{layer}", f"{p}k_heads"], f"key_{layer}", attributes={"axis": 2})
        g.node("Concat", [f"past_value_{layer}", f"{p}v_heads"], f"value_{layer}", attributes={"axis": 2})
        g.node(
            "FusedMatMul",
            [f"{p}q_heads", f"key_{layer}"],
            f"{p}scores",
            domain=MICROSOFT,
            attributes={"transB": 1, "alpha": HEAD_DIM**-0.5},
        )
        return self._weighted_sum(f"{p}scores", f"value_{layer}", p, f"layers.{layer}/self_attn/o_proj")

    def _cross_attention(self, layer: int, hidden: str) -> str:
        g, p = self._g, f"layer{layer}_cross_"
        key = g.input(cross_name("key", layer), "float32", ["rows", N_HEADS, HEAD_DIM, "frames"])
        value = g.input(cross_name("value", layer), "float32", ["rows", N_HEADS, "frames", HEAD_DIM])
        self._linear(hidden, [f"layers.{layer}/encoder_attn/q_proj"], f"{p}q")
        # One query per row: onnxruntime is three times quicker here where it need not scale the product.
        g.weight("query_scale", np.array(HEAD_DIM**-0.5, np.float32))
        g.node("Mul", [f"{p}q", "query_scale"], f"{p}q_scaled")
        g.node("Reshape", [f"{p}q_scaled", "heads_shape"], f"{p}q_heads")
        g.node("MatMul", [f"{p}q_heads", key], f"{p}raw_scores")
        g.node("Add", [f"{p}raw_scores", "mask"], f"{p}scores")
        return self._weighted_sum(f"{p}scores", value, p, f"layers.{layer}/encoder_attn/o_proj")

    def _weighted_sum(self, scores: str, values: str, prefix: str, projection: str) -> str:
        g = self._g
        g.node("Softmax", [scores], f"{prefix}weights", attributes={"axis": -1})
        g.node("MatMul", [f"{prefix}weights", values], f"{prefix}heads_out")
        g.node("Reshape", [f"{prefix}heads_out", "row_shape"], f"{prefix}row")
        return self._linear(f"{prefix}row", [projection], f"{prefix}projected")

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

    def _norm_weight(self, path: str) -> str:
        return self._g.weight(
            f"{path}.weight", self._weights.constants[f"model.decoder.{path}.weight_merged_0"]
        )

    def _bias(self, layer: int, name: str) -> NDArray[np.float32]:
        bias: NDArray[np.float32] = self._weights.constants[
            f"model.decoder.layers.{layer}.mlp.{name}.bias_merged_0"
        ]
        return bias

    def _linear(self, x: str, paths: list[str], out: str, bias: NDArray[np.float32] | None = None) -> str:
        """x times the matrices at `paths` side by side, 8-bit weights, plus a bias."""
        g = self._g
        matrices = [self._weights.matrices[path] for path in paths]
        n_in = matrices[0].codes.shape[0]
        n_out = sum(m.codes.shape[1] for m in matrices)
        n_blocks = n_in // _BLOCK
        # MatMulNBits wants codes (n_out, blocks, block) with one scale and zero point per block.
        codes = np.concatenate([m.codes for m in matrices], axis=1).T.reshape(n_out, n_blocks, _BLOCK)
        per_block = [(m, m.codes.shape[1] * n_blocks) for m in matrices]
        g.weight(f"{out}_codes", codes)
        g.weight(f"{out}_scales", np.concatenate([np.full(n, m.scale, np.float32) for m, n in per_block]))
        g.weight(
            f"{out}_zero_points", np.concatenate([np.full(n, m.zero_point, np.uint8) for m, n in per_block])
        )
        product = g.node(
            "MatMulNBits",
            [x, f"{out}_codes", f"{out}_scales", f"{out}_zero_points"],
            out if bias is None else f"{out}_product",
            domain=MICROSOFT,
            attributes={"K": n_in, "N": n_out, "bits": 8, "block_size": _BLOCK, "accuracy_level": 4},
        )
        if bias is None:
            return product
        return g.node("Add", [product, g.weight(f"{out}_bias", bias)], out)
