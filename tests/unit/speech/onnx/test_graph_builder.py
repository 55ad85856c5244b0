"""Graphs are judged by the runtime that is to load them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from voiceforge.speech.onnx.graph_builder import GraphBuilder

OPSETS = {"": 18}


def run(graph: GraphBuilder, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph.to_bytes(OPSETS), providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None, inputs)
    return results


def test_nodes_weights_inputs_and_outputs_make_a_model() -> None:
    graph = GraphBuilder("sum")
    x = graph.input("x", "float32", ["rows", 3])
    ones = graph.weight("ones", np.ones(3, np.float32))
    graph.output(graph.node("Add", [x, ones], "y"), "float32", ["rows", 3])
    (y,) = run(graph, x=np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(y, np.ones((2, 3)))


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8", "int32", "int64", "bool"])
def test_weights_of_every_type_come_back_as_they_were(dtype: str) -> None:
    value = np.array([[0, 1, 2], [100, 0, 1]]).astype(dtype)
    graph = GraphBuilder("constant")
    graph.output(graph.node("Identity", [graph.weight("w", value)], "y"), dtype, [2, 3])
    (y,) = run(graph)
    assert y.dtype == value.dtype
    np.testing.assert_array_equal(y, value)


def test_attributes_of_every_kind_reach_the_node() -> None:
    graph = GraphBuilder("attributes")
    x = graph.input("x", "float32", [2, 3])
    graph.node("Transpose", [x], "turned", attributes={"perm": [1, 0]})
    graph.node("LeakyRelu", ["turned"], "leaky", attributes={"alpha": 0.5})
    graph.output(graph.node("ArgMax", ["leaky"], "y", attributes={"axis": -1, "keepdims": 0}), "int64", [3])
    graph.output(graph.node("DepthToSpace", ["image"], "z", attributes={"blocksize": 2, "mode": "CRD"}),
                 "float32", [1, 1, 2, 2])  # fmt: skip
    graph.weight("image", np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1))
    y, z = run(graph, x=np.array([[1, -8, 3], [2, -6, 1]], np.float32))
    assert y.tolist() == [1, 1, 0]
    assert z.ravel().tolist() == [0, 1, 2, 3]


def test_a_node_may_have_several_outputs_and_unused_slots() -> None:
    graph = GraphBuilder("split")
    x = graph.input("x", "float32", [4])
    graph.weight("sizes", np.array([1, 3], np.int64))
    assert graph.node("Split", [x, "sizes"], ["a", "b"], attributes={"axis": 0}) == "a"
    graph.node("Clip", ["b", "", graph.weight("high", np.array(2.5, np.float32))], "c")
    graph.output("a", "float32", [1])
    graph.output("c", "float32", [3])
    a, c = run(graph, x=np.arange(4, dtype=np.float32))
    assert (a.tolist(), c.tolist()) == ([0.0], [1.0, 2.0, 2.5])
