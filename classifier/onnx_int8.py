"""Rewrite an fp32 ONNX graph so that its linear layers multiply int8. Pure onnx and numpy.

Weights get one scale per output column; activations one scale and zero point per row, that is per token, found while
running. ONNX Runtime's own dynamic quantisation has one of each for the whole batch: a token with large activations
then costs all others their precision (three times as many labels changed), and a text's scores depend on its
neighbours. By rows neither happens, at the same speed. With `S`, `s` the scales of columns and rows, `z` a row's zero:

    q = round(x / s) + z                                                      in uint8
    y = s * (q - z) @ Wq * S = s * (q - 128) @ Wq * S + s * (128 - z) * sum(Wq) * S
"""

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

COLUMN_LEVELS = 127
ROW_LEVELS = 254
"""One less than a byte has, so that the rounded zero cannot push the largest value out."""
MIDDLE = 128
"""The kernels take unsigned rows, signed columns, and one zero for all rows: each row's own is put right afterwards."""
LEAST_SCALE = 1e-12
TABLE_ELEMENTS = 1_000_000
"""From this size on an embedding table is stored as float16, which halves the file."""
CONTRIB = "com.microsoft"

Array = np.ndarray[Any, np.dtype[Any]]


class GraphError(ValueError):
    """The graph cannot be rewritten; the message says why."""


class _Rewriter:
    """Nodes of the new graph in order, and the constants they use."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.given = {item.name: item for item in model.graph.initializer}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.nodes: list[NodeProto] = []
        self.made: dict[str, TensorProto] = {}
        self.folded: set[str] = set()
        """Outputs of biases that are part of a product already."""
        self.rows: dict[str, str] = {}
        """Input -> prefix of its quantised form; query, key and value share one."""

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}_node", **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        self.made.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant("int8_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, name: str, value: float) -> str:
        return self.constant(f"int8_{name}", np.array(value, np.float32))

    def is_linear(self, node: NodeProto) -> bool:
        return node.op_type == "MatMul" and self._is_matrix(node.input[1])

    def is_large_lookup(self, node: NodeProto) -> bool:
        if node.op_type != "Gather" or not self._is_matrix(node.input[0]):
            return False
        return int(np.prod(self.given[node.input[0]].dims)) >= TABLE_ELEMENTS

    def _is_matrix(self, name: str) -> bool:
        item = self.given.get(name)
        return item is not None and len(item.dims) == 2 and item.data_type == TensorProto.FLOAT

    def quantise_rows(self, x: str, width: int) -> str:
        """The prefix `P` of: `P_q`, `x` in uint8 as `[rows, width]`; `P_scale`, the scale of a row, `[rows, 1]`;
        `P_shift`, how far its zero is off the middle, times its scale, and a 1 for the bias, `[rows, 2]`."""
        if x in self.rows:
            return self.rows[x]
        at = self.rows[x] = f"{x}_int8"
        flat = self.add("Reshape", [x, self.integers(-1, width)], f"{at}_flat")
        least, most = self._find_range(flat, at)
        span = self.add("Sub", [most, least], f"{at}_span")
        step = self.add("Mul", [span, self.number("step", 1 / ROW_LEVELS)], f"{at}_step")
        # A row of zeros would divide by zero.
        scale = self.add("Max", [step, self.number("least", LEAST_SCALE)], f"{at}_row_scale")
        below = self.add("Div", [self.add("Neg", [least], f"{at}_neg"), scale], f"{at}_below")
        zero = self.add("Round", [below], f"{at}_zero")
        byte = self.add("Cast", [zero], f"{at}_zero_byte", to=TensorProto.UINT8)
        self.add("QuantizeLinear", [flat, scale, byte], f"{at}_q", axis=0)
        off = self.add("Sub", [self.number("middle", MIDDLE), zero], f"{at}_off")
        shift = self.add(
            "Unsqueeze", [self.add("Mul", [off, scale], f"{at}_by_row"), self.integers(1)], f"{at}_by_rows"
        )
        self.add("Pad", [shift, self.integers(0, 0, 0, 1), self.number("one", 1)], f"{at}_shift")
        self.add("Unsqueeze", [scale, self.integers(1)], f"{at}_scale")
        self.add("Shape", [x], f"{at}_shape", end=-1)
        return at

    def _find_range(self, flat: str, at: str) -> tuple[str, str]:
        """Least and largest value of each row, `[rows]`; 0 always lies between them."""
        least = self.add("ReduceMin", [flat, self.integers(1)], f"{at}_row_least", keepdims=0)
        most = self.add("ReduceMax", [flat, self.integers(1)], f"{at}_row_most", keepdims=0)
        nought = self.number("nought", 0)
        return self.add("Min", [least, nought], f"{at}_least"), self.add("Max", [most, nought], f"{at}_most")

    def multiply(self, node: NodeProto) -> None:
        """The MatMul on int8, with the bias that follows it, in the shape of the given output."""
        x, weight, output = node.input[0], node.input[1], node.output[0]
        values, scale = quantise_columns(numpy_helper.to_array(self.given[weight]), weight)
        at = self.quantise_rows(x, values.shape[0])
        operands = [
            f"{at}_q",
            self.constant(f"{weight}_int8", values),
            self.number("one", 1),
            self.constant(f"{weight}_scale", scale),
            self.constant("int8_middle_byte", np.array(MIDDLE, np.uint8)),
        ]
        product = self.add("MatMulIntegerToFloat", operands, f"{output}_product", domain=CONTRIB)
        centred = self.add("Mul", [product, f"{at}_scale"], f"{output}_centred")
        bias, biased = self._find_bias(output, values.shape[1])
        sums = np.stack([values.sum(0, dtype=np.int64) * scale, bias]).astype(np.float32)
        shifted = self.add("Gemm", [f"{at}_shift", self.constant(f"{biased}_sums", sums), centred], f"{biased}_shifted")
        shape = self.add("Concat", [f"{at}_shape", self.integers(values.shape[1])], f"{biased}_shape", axis=0)
        self.add("Reshape", [shifted, shape], biased)

    def _find_bias(self, output: str, size: int) -> tuple[Array, str]:
        """The vector that the only reader of an output adds to it, and what that is called; zeros where none does."""
        match self.readers.get(output, []):
            case [NodeProto(op_type="Add") as node]:
                for name in node.input:
                    if name in self.given and list(self.given[name].dims) == [size]:
                        self.folded.add(node.output[0])
                        return numpy_helper.to_array(self.given[name]), node.output[0]
        return np.zeros(size, np.float32), output

    def look_up_halves(self, node: NodeProto) -> None:
        table, output = node.input[0], node.output[0]
        halves = self.constant(f"{table}_half", numpy_helper.to_array(self.given[table]).astype(np.float16))
        found = self.add("Gather", [halves, node.input[1]], f"{output}_half")
        self.add("Cast", [found], output, to=TensorProto.FLOAT)


def quantise_linears(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every product by a constant matrix on int8. Changes `model`. Raises GraphError."""
    rewriter = _Rewriter(model)
    for node in model.graph.node:
        if rewriter.is_linear(node):
            rewriter.multiply(node)
        elif rewriter.is_large_lookup(node):
            rewriter.look_up_halves(node)
        elif node.output[0] not in rewriter.folded:
            rewriter.nodes.append(node)
    if not any(node.domain == CONTRIB for node in rewriter.nodes):
        raise GraphError("the exported graph has no linear layer that could be quantised")
    used = {name for node in rewriter.nodes for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in used]
    graph = helper.make_graph(
        rewriter.nodes, "bert", model.graph.input, model.graph.output, [*kept, *rewriter.made.values()]
    )
    opsets = [item for item in model.opset_import if item.domain != CONTRIB]
    opsets.append(helper.make_opsetid(CONTRIB, 1))
    return _strip(helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version))


def quantise_columns(weight: Array, name: str) -> tuple[Array, Array]:
    """`[K, N]` as int8, and the scale of each column, `[N]`."""
    if not np.isfinite(weight).all():
        raise GraphError(f"the weight {name} has values that are no numbers")
    scale = np.maximum(np.abs(weight).max(0) / COLUMN_LEVELS, LEAST_SCALE).astype(np.float32)
    return np.rint(weight / scale).clip(-COLUMN_LEVELS, COLUMN_LEVELS).astype(np.int8), scale


def _strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes: they hold stack traces with this machine's paths, and differ from run to run."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for item in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    return model
