"""Linear layers on int8, row by row, against the same graph in fp32."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from classifier import onnx_int8
from classifier.onnx_int8 import GraphError, quantise_columns, quantise_linears

RNG = np.random.default_rng(5)
WEIGHT = RNG.normal(size=(64, 24)).astype(np.float32)
BIAS = RNG.normal(size=24).astype(np.float32) * 3


def make_graph(*, bias: np.ndarray[Any, Any] | None = BIAS, weight: np.ndarray[Any, Any] = WEIGHT) -> onnx.ModelProto:
    """`y = x @ weight + bias`, and `z = y @ y^T`, a product of two activations."""
    constants = {"w": weight} | ({} if bias is None else {"b": bias})
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Identity", ["product"], ["y"])
        if bias is None
        else helper.make_node("Add", ["b", "product"], ["y"]),
        helper.make_node("Transpose", ["y"], ["turned"], perm=[0, 2, 1], doc_string="traced at /somewhere"),
        helper.make_node("MatMul", ["y", "turned"], ["z"]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "T", None]) for name in ("y", "z")]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", 64])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray[Any, Any]] = session.run(None, {"x": x.astype(np.float32)})
    return found


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("bias", [BIAS, None])
def test_stays_close_to_fp32_whatever_the_scale_of_a_row(bias: np.ndarray[Any, Any] | None) -> None:
    x = RNG.normal(size=(3, 5, 64)) * 10.0 ** RNG.integers(-3, 4, size=(3, 5, 1)) + RNG.normal(size=(3, 5, 1))
    x[0, 0] = 0
    x[0, 1] = np.abs(x[0, 1]) + 4
    x[0, 2] = -np.abs(x[0, 2]) - 4
    (want, _), (got, _) = run(make_graph(bias=bias), x), run(quantise_linears(make_graph(bias=bias)), x)
    size = np.abs(x).max(-1, keepdims=True) * np.abs(WEIGHT).max()
    # Half a step of 1/254 of the span and half a step of 1/127 of a column, over 64 products whose signs differ.
    assert (np.abs(got - want) <= 0.06 * size + 1e-6).all()
    assert np.abs(got[0, 0] - want[0, 0]).max() < 1e-6


def test_a_row_comes_out_the_same_beside_any_others() -> None:
    model = quantise_linears(make_graph())
    x = RNG.normal(size=(1, 4, 64))
    loud = np.concatenate([x, 1000 * RNG.normal(size=(1, 4, 64))])
    assert np.array_equal(run(model, loud)[0][0], run(model, x)[0][0])


def test_only_products_by_a_constant_change_and_the_bias_is_taken_in() -> None:
    model = quantise_linears(make_graph())
    assert kinds(model).count("MatMulIntegerToFloat") == 1
    assert kinds(model).count("MatMul") == 1
    assert "Add" not in kinds(model)
    assert {item.name for item in model.graph.initializer}.isdisjoint({"w", "b"})
    assert all(node.doc_string == "" for node in model.graph.node)
    onnx.checker.check_model(model)


def test_a_bias_that_others_read_too_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    given = make_graph()
    given.graph.node.append(helper.make_node("Relu", ["product"], ["r"]))
    given.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, None))
    model = quantise_linears(given)
    assert "Add" in kinds(model)
    x = RNG.normal(size=(1, 2, 64))
    y, _, positive = run(model, x)
    assert positive == pytest.approx(np.maximum(y - BIAS, 0), abs=1e-5)


def test_a_large_table_is_stored_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_int8, "TABLE_ELEMENTS", 64 * 24)
    given = make_graph()
    given.graph.node.append(helper.make_node("Gather", ["w", "at"], ["row"]))
    given.graph.initializer.append(numpy_helper.from_array(np.array([3], np.int64), "at"))
    given.graph.output.append(helper.make_tensor_value_info("row", TensorProto.FLOAT, None))
    model = quantise_linears(given)
    assert TensorProto.FLOAT16 in [item.data_type for item in model.graph.initializer]
    assert run(model, np.zeros((1, 1, 64)))[2][0] == pytest.approx(WEIGHT[3], rel=1e-3)


def test_columns_use_all_of_a_byte() -> None:
    values, scale = quantise_columns(np.array([[1.0, 0.0], [-2.0, 0.0], [0.5, 0.0]], np.float32), "w")
    # 1 / 2 * 127 = 63.5 and 0.5 / 2 * 127 = 31.75; a half rounds to even.
    assert values.tolist() == [[64, 0], [-127, 0], [32, 0]]
    assert scale[0] == pytest.approx(2 / 127)


def test_refuses_weights_that_are_no_numbers_and_graphs_without_linear_layers() -> None:
    weight = WEIGHT.copy()
    weight[0, 0] = np.nan
    with pytest.raises(GraphError, match="weight w has values that are no numbers"):
        quantise_linears(make_graph(weight=weight))
    given = make_graph()
    del given.graph.node[0]
    with pytest.raises(GraphError, match="no linear layer"):
        quantise_linears(given)
