"""Trace a BERT part to one int8 ONNX file.

    python -m classifier.onnx_export PART BASE TO

A process of its own: tracing patches torch, under the feet of whatever else runs in it. Called by `classifier.derived`.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

from classifier.bert import ServedModel, load_part
from classifier.errors import ClassifierError
from classifier.onnx_int8 import GraphError, quantise_linears
from classifier.schema import Schema, load_schema


def export_part(part: Path, base: Path, schema: Schema) -> onnx.ModelProto:
    """`input_ids` and `attention_mask`, `[B, T]`, to `logits`, `[B, V]`. Raises BundleError, GraphError or, from the
    exporter, RuntimeError."""
    model, _ = load_part(part, base, schema)
    encoder: Any = model.encoder
    # The plain form: fused attention comes out with guards against empty rows, which no text has.
    encoder.set_attn_implementation("eager")
    # Two different sizes above 1: the tracer takes sizes that are equal, or 1, for constants.
    ids = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        ServedModel(model, schema.names).eval(),
        (ids, torch.ones_like(ids)),
        dynamo=True,
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        verbose=False,
    )
    assert program is not None
    return quantise_linears(program.model_proto)


def main(argv: Sequence[str] | None = None) -> int:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(prog="python -m classifier.onnx_export", description="Trace a BERT part to ONNX.")
    for name in ("part", "base", "to"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    try:
        onnx.save(export_part(args.part, args.base, load_schema()), str(args.to))
    except (ClassifierError, GraphError, RuntimeError, OSError) as error:
        print(f"{type(error).__name__}: {error}".partition("\n")[0], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
