"""The LLM arm against two usual ways to get the same four labels out of the same weights.

    python -m bench.llm_scoring [--texts 32] [--release releases/starter-2] [--rounds 3]

`generate`: transformers' greedy generation of a line of the same length behind the same prompt. `pipeline`:
transformers' `pipeline("decision")` asked the four questions with the schema's descriptions. Both run the merged
weights in float32, as does the arm; `int8` is the arm with 8-bit linears. The arm verifies what the release's BERT arm
drafts, and the time BERT takes is counted. All run in one process on the same texts, in turns, so that a busy machine
slows all alike; every ratio is the median over the turns. `max_abs_diff`: the largest gap between a probability of the
arm in float32 and that of exhaustive constrained scoring, which reads the whole prompt again for every node of every
label. The last line is one JSON object; times are milliseconds a text.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import pipeline

from bench.texts import read_texts
from classifier import api
from classifier.base_models import base_models_dir, find_base
from classifier.llm import LlmArm
from classifier.llm_load import LlmSettings
from classifier.llm_prompt import LabelPrompt
from classifier.schema import load_schema
from tests.classifier.exhaustive import score_exhaustively

BATCH = 32
EXHAUSTIVE_TEXTS = 4
SCHEMA = load_schema()

Probabilities = Mapping[str, Mapping[str, float]]


@dataclass
class Contender:
    """`seconds`: per turn and text."""

    answer: Callable[[Sequence[str]], Any]
    batch: int
    seconds: list[float] = field(default_factory=list)

    def take_turn(self, texts: Sequence[str]) -> None:
        started = time.perf_counter()
        for at in range(0, len(texts), self.batch):
            self.answer(texts[at : at + self.batch])
        self.seconds.append((time.perf_counter() - started) / len(texts))

    @property
    def median_ms(self) -> float:
        return round(1000 * statistics.median(self.seconds), 2)


class Drafted:
    """The arm as it serves: BERT drafts, the LLM verifies."""

    def __init__(self, classifier: api.Classifier, arm: LlmArm) -> None:
        self.classifier = classifier
        self.arm = arm

    def score(self, texts: Sequence[str]) -> list[Probabilities]:
        drafts = [top_labels(score.probabilities) if score else {} for score in self._draft(texts)]
        return [score.probabilities for score in self.arm.score(texts, drafts)]

    def _draft(self, texts: Sequence[str]) -> list[Any]:
        return list(self.classifier.score_arm("bert", texts, [{}] * len(texts)))


def top_labels(probabilities: Probabilities) -> dict[str, str]:
    return {name: max(row, key=row.__getitem__) for name, row in probabilities.items()}


def load_plain(part: Path, base: Path) -> Any:
    """The same weights as transformers and peft have them, untouched by the arm's loader."""
    from peft import PeftModel

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    if (part / "adapter_config.json").is_file():
        adapted: Any = PeftModel.from_pretrained(model, str(part))
        model = adapted.merge_and_unload()
    return model.eval()


class Generator:
    """Greedy, batched with padding on the left.

    As many tokens as the label line has: the weights are trained on the labels, not on the words between them, and
    would end the line early by themselves.
    """

    def __init__(self, model: Any, prompt: LabelPrompt, lines: Mapping[str, Mapping[str, str]]) -> None:
        """`lines`: text -> the labels of its line."""
        self.model = model
        self.prompt = prompt
        self.tokens = {text: len(prompt.encode_line(labels)) for text, labels in lines.items()}

    @torch.inference_mode()
    def answer(self, texts: Sequence[str]) -> None:
        rows = [list(self.prompt.encode_prompt(text, 512)) for text in texts]
        width, tokens = max(map(len, rows)), max(self.tokens[text] for text in texts)
        ids = torch.tensor([[self.prompt.eos] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        made = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=self.prompt.eos,
        )
        assert made.shape == (len(texts), width + tokens)


class Questions:
    """Four questions about each text, as the pipeline's own documentation asks them."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.decide: Any = pipeline("decision", model=model, tokenizer=tokenizer, device="cpu")
        self.questions = {
            item.name: {
                "type": "choice",
                "instructions": item.question,
                "criteria": {value.name: value.description for value in item.values},
            }
            for item in SCHEMA.dimensions
        }

    @torch.inference_mode()
    def answer(self, texts: Sequence[str]) -> Any:
        return self.decide([{"state": text, "questions": self.questions} for text in texts])


def largest_gap(ours: Sequence[Probabilities], theirs: Sequence[Probabilities]) -> float:
    return max(
        abs(a[name][value] - b[name][value])
        for a, b in zip(ours, theirs, strict=True)
        for name in a
        for value in a[name]
    )


def agreement(ours: Sequence[Probabilities], theirs: Sequence[Probabilities]) -> float:
    """Share of equal labels over all dimensions."""
    pairs = [
        top_labels(a)[name] == top_labels(b)[name] for a, b in zip(ours, theirs, strict=True) for name in SCHEMA.names
    ]
    return round(sum(pairs) / len(pairs), 4)


def median_ratio(theirs: Contender, ours: Contender) -> float:
    return round(statistics.median(a / b for a, b in zip(theirs.seconds, ours.seconds, strict=True)), 2)


def measure(release: Path, bases: Path, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    classifier = api.load(release, base_models=bases, verify=False)
    if classifier.manifest.llm is None:
        raise SystemExit(f"{release.name} has no llm part")
    part, base = release / "llm", find_base(classifier.manifest.llm.base, bases)
    system = (release / "prompt.txt").read_text(encoding="utf-8")
    full, small = (
        Drafted(classifier, LlmArm.load(part, base, SCHEMA, system, settings=LlmSettings(int8=int8)))
        for int8 in (False, True)
    )
    plain, prompt = load_plain(part, base), full.arm.prompt
    lines = {text: top_labels(row) for text, row in zip(texts, full.score(texts), strict=True)}
    generator, questions = Generator(plain, prompt, lines), Questions(plain, prompt.tokenizer)
    contenders = {
        "ours_b1": Contender(full.score, 1),
        "ours_int8_b1": Contender(small.score, 1),
        "pipeline_b1": Contender(questions.answer, 1),
        "generate_b1": Contender(generator.answer, 1),
        "ours_b32": Contender(full.score, BATCH),
        "ours_int8_b32": Contender(small.score, BATCH),
        "pipeline_b32": Contender(questions.answer, BATCH),
        "generate_b32": Contender(generator.answer, BATCH),
    }
    for contender in contenders.values():
        contender.answer(texts[: min(contender.batch, 4)])
    for _ in range(rounds):
        for contender in contenders.values():
            contender.take_turn(texts)
    ours, rounded = full.score(texts), small.score(texts)
    probed = texts[:EXHAUSTIVE_TEXTS]
    exhaustive = [score_exhaustively(plain, prompt, text, full.arm.max_tokens) for text in probed]
    return {
        **{
            f"vs_{name}": median_ratio(contenders[name], contenders[f"ours_b{name.rpartition('_b')[2]}"])
            for name in ("generate_b1", "generate_b32", "pipeline_b1", "pipeline_b32")
        },
        "int8_vs_generate_b1": median_ratio(contenders["generate_b1"], contenders["ours_int8_b1"]),
        "int8_vs_fp32_b1": median_ratio(contenders["ours_b1"], contenders["ours_int8_b1"]),
        "int8_vs_fp32_b32": median_ratio(contenders["ours_b32"], contenders["ours_int8_b32"]),
        "max_abs_diff": largest_gap(full.score(probed), exhaustive),
        "int8_agreement": agreement(ours, rounded),
        "ms": {name: contender.median_ms for name, contender in contenders.items()},
    }


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--release", type=Path, default=api.STARTER_BUNDLE)
    parser.add_argument("--base-models", type=Path, default=base_models_dir())
    parser.add_argument("--texts", type=int, default=32, help="how many, of the bank's held-out rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    quiet: Any = transformers.utils.logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    torch.set_num_threads(args.threads)
    texts = [row.text for row in read_texts(None, args.texts)]
    figures = measure(args.release.resolve(), args.base_models, texts, args.rounds)
    print(json.dumps({"bench": "llm_scoring", "texts": len(texts), "threads": args.threads, **figures}))


if __name__ == "__main__":
    main()
