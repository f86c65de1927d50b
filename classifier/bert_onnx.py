"""The BERT arm on ONNX Runtime, int8 on the CPU; and the choice between it and torch."""

import logging
import os
import platform
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as errors
from transformers import AutoTokenizer

from classifier.bert import RUNTIMES, BertArm, EncoderArm, Matrix, PartSettings, Runtime
from classifier.derived import ExportFailed, ensure_onnx
from classifier.errors import BundleError
from classifier.schema import Schema

log = logging.getLogger(__name__)

RUNTIME_SETTING = "HEED_BERT_RUNTIME"
CPU_INFO = Path("/proc/cpuinfo")
_failures: Any = errors
SESSION_ERRORS: tuple[type[Exception], ...] = (
    _failures.EPFail,
    _failures.EngineError,
    _failures.Fail,
    _failures.InvalidArgument,
    _failures.InvalidGraph,
    _failures.InvalidProtobuf,
    _failures.NoModel,
    _failures.NoSuchFile,
    _failures.NotImplemented,
    _failures.RuntimeException,
)
"""None of them is a RuntimeError, the one exception of a failing network that callers know."""
LOAD_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, *SESSION_ERRORS)


class OnnxBertArm(EncoderArm):
    """Same texts, windows and batches as `BertArm`, within the loss that the release's gate allowed."""

    def __init__(self, session: Any, tokenizer: Any, schema: Schema, *, max_tokens: int) -> None:
        super().__init__(tokenizer, schema, max_tokens=max_tokens)
        self.session = session

    @classmethod
    def load(cls, path: Path, base: Path, schema: Schema) -> Self:
        """Makes the ONNX file where it is not there. Raises BundleError or ExportFailed."""
        settings = PartSettings.read(path)
        try:
            session = open_session(ensure_onnx(path, base, schema))
            tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        except LOAD_ERRORS as error:
            raise ExportFailed(f"the ONNX file of the bert part cannot be loaded: {error}") from error
        return cls(session, tokenizer, schema, max_tokens=settings.max_tokens)

    def forward(self, ids: Matrix, mask: Matrix) -> Matrix:
        try:
            (logits,) = self.session.run(None, {"input_ids": ids, "attention_mask": mask})
        except SESSION_ERRORS as error:
            raise RuntimeError(f"ONNX Runtime failed on a batch: {type(error).__name__}") from error
        return np.asarray(logits, dtype=np.float64)


def open_session(path: Path) -> Any:
    """With as many threads as torch has."""
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Every batch has another shape, so a memory plan made for the last one would only hold memory.
    options.enable_mem_pattern = False
    # Threads that spin between two batches would take the cores from the LLM.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if sums_overflow():
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def sums_overflow() -> bool:
    """Whether this processor adds products of unsigned and signed bytes in 16 bits: x86 without VNNI.

    ONNX Runtime then has to make the weights unsigned, which is exact, and half as fast.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686", "x86"):
        return False
    try:
        features = CPU_INFO.read_text(encoding="utf-8").split()
    except OSError:
        return True  # nothing tells: rather slow than wrong
    return "avx512_vnni" not in features and "avx_vnni" not in features


def load_bert(path: Path, base: Path, schema: Schema) -> EncoderArm:
    """On the runtime that suits machine and release; HEED_BERT_RUNTIME (`torch`, `onnx`) overrules both.

    A machine that cannot make the ONNX file serves by torch, which answers the same, only slower. Raises BundleError.
    """
    wanted = read_override()
    if wanted == "torch":
        return BertArm.load(path, base, schema)
    if wanted is None and (torch.cuda.is_available() or PartSettings.read(path).runtime == "torch"):
        return BertArm.load(path, base, schema)
    try:
        return OnnxBertArm.load(path, base, schema)
    except ExportFailed as error:
        if wanted == "onnx":
            raise BundleError(f"{RUNTIME_SETTING}=onnx: {error}") from error
        log.warning("the bert arm is served by torch: %s", error)
        return BertArm.load(path, base, schema)


def read_override() -> Runtime | None:
    """Raises BundleError on an odd value."""
    raw = os.environ.get(RUNTIME_SETTING, "")
    for runtime in RUNTIMES:
        if raw == runtime:
            return runtime
    if raw:
        raise BundleError(f"{RUNTIME_SETTING} is {raw!r}, expected {' or '.join(RUNTIMES)}")
    return None
