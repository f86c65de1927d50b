"""The BERT arm as it serves against a plain transformers `pipeline("text-classification")` on the same weights.

    python -m bench.bert [--release releases/starter-2] [--texts PATH] [--rows 2000] [--threads 1]

The pipeline answers one dimension, risk; the arm answers all four. Both read the same texts in the same process, cut to
the same number of tokens, on as many threads, in turns of a few hundred texts, so that a busy machine slows both; the
ratio is the median over the turns. `--texts` is a folder or file of labelled rows, by default the bank, held-out rows
first. `accuracy_loss_points` is the share of right labels over all four dimensions, in percent, that int8 loses against
the same weights in fp32; each dimension, and risk against the pipeline, stand beside it. The last line is one JSON
object.
"""

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel, pipeline
from transformers.modeling_outputs import SequenceClassifierOutput

from bench.texts import read_texts
from classifier.base_models import base_models_dir, find_base
from classifier.bert import BertArm, BertModel, PartSettings, encode_texts, load_part
from classifier.bert_onnx import OnnxBertArm, load_bert
from classifier.bundle import read_manifest
from classifier.schema import load_schema
from classifier.types import ArmScores
from training.corpus.rows import Row, likeliest

ROOT = Path(__file__).resolve().parent.parent
TURN_ROWS = 250
DIMENSION = "risk"


class RiskModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Encoder and one head as a pipeline wants them."""

    _supports_sdpa = True  # the encoder keeps its own attention, the default one

    def __init__(self, model: BertModel) -> None:
        encoder: Any = model.encoder
        config = copy.deepcopy(encoder.config)
        config.id2label = dict(enumerate(load_schema()[DIMENSION].names))
        config.label2id = {name: index for index, name in config.id2label.items()}
        super().__init__(config)
        self.encoder = model
        self.head = model.heads[DIMENSION]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.head(self.encoder.embed(input_ids, attention_mask)))


@dataclass
class Contender:
    name: str
    answer: Callable[[Sequence[str]], list[Any]]
    seconds: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    def take_turn(self, texts: Sequence[str]) -> None:
        started = time.perf_counter()
        self.answers += self.answer(texts)
        self.seconds.append(time.perf_counter() - started)


def make_pipeline(part: Path, base: Path) -> Callable[[Sequence[str]], list[str]]:
    model, tokenizer = load_part(part, base, load_schema())
    # Its one setting: without a cut the longest texts would not fit the model at all.
    tokenizer.model_max_length = PartSettings.read(part).max_tokens
    risk_model: Any = RiskModel(model)
    make: Any = pipeline
    classify = make("text-classification", model=risk_model.eval(), tokenizer=tokenizer, device="cpu")
    return lambda texts: [row["label"] for row in classify(list(texts), truncation=True)]


def run_turns(contenders: Sequence[Contender], texts: Sequence[str]) -> None:
    for start in range(0, len(texts), TURN_ROWS):
        for contender in contenders:
            contender.take_turn(texts[start : start + TURN_ROWS])


def top(scores: ArmScores, name: str) -> str:
    row = scores.probabilities[name]
    return max(row, key=row.__getitem__)


def count_right(rows: Sequence[Row], answers: Sequence[str], name: str) -> tuple[int, int]:
    """Right answers, and rows that have one label for the dimension."""
    known = [(likeliest(row.labels.get(name)), given) for row, given in zip(rows, answers, strict=True)]
    judged = [truth == given for truth, given in known if truth is not None]
    return sum(judged), len(judged)


def measure_loss(rows: Sequence[Row], exact: Sequence[ArmScores], ours: Sequence[ArmScores]) -> dict[str, Any]:
    """In percentage points, positive where int8 is worse."""
    losses, lost, asked = {}, 0, 0
    for name in load_schema().names:
        before, total = count_right(rows, [top(scores, name) for scores in exact], name)
        after, _ = count_right(rows, [top(scores, name) for scores in ours], name)
        losses[name] = round(100 * (before - after) / max(total, 1), 3)
        lost, asked = lost + before - after, asked + total
    return {
        "accuracy_loss_points": round(100 * lost / max(asked, 1), 3),
        "loss_points": losses,
        "labels_judged": asked,
    }


def count_lengths(arm: Any, texts: Sequence[str]) -> dict[str, int]:
    lengths = [len(ids) for row in encode_texts(arm.tokenizer, texts, arm.max_tokens) for ids in row]
    cuts = np.percentile(lengths, [50, 90, 99])
    return {"p50": int(cuts[0]), "p90": int(cuts[1]), "p99": int(cuts[2])}


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--release", type=Path, default=ROOT / "releases" / "starter-2")
    parser.add_argument("--base-models", type=Path, default=base_models_dir())
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    quiet: Any = transformers.utils.logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    torch.set_num_threads(args.threads)
    rows = read_texts(args.texts, args.rows)
    print(json.dumps({"bench": "bert", "release": args.release.name, "threads": args.threads, **measure(args, rows)}))


def measure(args: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    part, base = find_part(args)
    arm, exact = load_bert(part, base, load_schema()), BertArm.load(part, base, load_schema())
    plain = Contender("pipeline", make_pipeline(part, base))
    ours, fp32 = Contender("ours", arm.score), Contender("torch", exact.score)
    texts = [row.text for row in rows]
    for contender in (plain, ours, fp32):
        contender.answer(texts[:16])
    run_turns((plain, ours, fp32), texts)
    per_s = {item.name: round(len(rows) / sum(item.seconds), 1) for item in (plain, ours, fp32)}
    print(", ".join(f"{name} {speed} texts/s" for name, speed in per_s.items()))
    right_plain, known = count_right(rows, plain.answers, DIMENSION)
    right_ours, _ = count_right(rows, [top(scores, DIMENSION) for scores in ours.answers], DIMENSION)
    ratio = statistics.median(theirs / mine for theirs, mine in zip(plain.seconds, ours.seconds, strict=True))
    return {
        "runtime": "onnx" if isinstance(arm, OnnxBertArm) else "torch",
        "rows": len(rows),
        "tokens": count_lengths(arm, texts),
        "vs_pipeline": round(ratio, 2),
        **measure_loss(rows, fp32.answers, ours.answers),
        "risk_loss_vs_pipeline_points": round(100 * (right_plain - right_ours) / max(known, 1), 3),
        "texts_per_s": per_s,
    }


def find_part(args: argparse.Namespace) -> tuple[Path, Path]:
    """The part and its base model."""
    manifest = read_manifest(args.release)
    if manifest.bert is None:
        raise SystemExit(f"--release: {manifest.name} has no bert part")
    return args.release / "bert", find_base(manifest.bert.base, args.base_models)


if __name__ == "__main__":
    main()
