"""From new arm parts to a judged bundle: calibrate on `val`, build, check the five statements, measure on `test`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from classifier import api
from classifier.base_models import find_base
from classifier.bert import EncoderArm
from classifier.bert_onnx import load_bert
from classifier.bundle import BundleParts
from classifier.calibrate import fit_abstain, fit_calibration
from classifier.hybrid import Calibration
from classifier.llm import LlmArm
from classifier.llm_open import open_llm
from classifier.remote_llm import RemoteLlm
from classifier.schema import load_schema
from classifier.types import ArmScores
from training.corpus.rows import Row, likeliest
from training.jobs.ablation import Given, make_report
from training.jobs.figures import score_labels
from training.jobs.gates import Gate
from training.jobs.runtime import Job, Stopped

BATCH_TEXTS = 16
T = TypeVar("T")
Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sets:
    """Rows a bundle is judged on. `learned`: the feedback it was trained on, as a check that it was taken in."""

    calibration: Sequence[Row]
    test: Sequence[Row]
    learned: Sequence[Row]

    @classmethod
    def read(cls, job: Job, test_rows: int = 0) -> "Sets":
        """`test` is `val` where a snapshot has no rows of its own for it; at most `test_rows` of it, 0: all.

        What people corrected comes first. The other ids are hashes, so the first ones are a fair sample.
        """
        has_test = (job.run_dir / "data" / "test.jsonl").is_file()
        learned = [row for row in job.rows("train") if row.source == "feedback"]
        test = sorted(job.rows("test" if has_test else "val"), key=lambda row: (row.source != "feedback", row.id))
        return cls(job.rows("val"), test[: test_rows or None], learned)


def in_batches(job: Job, stage: str, items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Batches with progress events between them. Raises Stopped between two."""
    for at in range(0, len(items), BATCH_TEXTS):
        if job.stop.is_set:
            raise Stopped
        yield items[at : at + BATCH_TEXTS]
        job.events.progress(stage, min(at + BATCH_TEXTS, len(items)), len(items))


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """How a bundle is calibrated on rows that no arm was trained on."""

    llm_rows: int = 0
    """The LLM reads the first so many; 0: all."""
    risk_thresholds: Mapping[str, float] | None = None
    """Those to keep. Thresholds stand on calibrated probabilities, so they outlast a new arm; fitted anew on a run's
    few rows they wander, and with them the balance of missed risk and false alarms. None: fit them."""
    abstain_target: float | None = None
    """Selective accuracy of risk below which answers are withheld; None: every answer is given."""


def calibrate_parts(job: Job, parts: BundleParts, rows: Sequence[Row], plan: CalibrationPlan) -> Calibration:
    schema = load_schema()
    scores: list[dict[str, ArmScores]] = [{} for _ in rows]
    texts = [row.text for row in rows]
    if parts.bert is not None and parts.bert_base is not None:
        bert = load_bert(parts.bert, find_base(parts.bert_base[0], job.config.base_models), schema)
        _collect(job, "calibrate BERT", bert, scores, texts)
        del bert
    if parts.llm is not None and parts.llm_base is not None:
        find = partial(find_base, parts.llm_base[0], job.config.base_models)
        prompt = parts.prompt.read_text(encoding="utf-8")
        llm = open_llm(parts.llm, parts.llm_base[0], schema, prompt, find_weights=find, find_tokenizer=find)
        # Row ids are hashes, so the first ones are a fair sample.
        _collect(job, "calibrate LLM", llm, scores, texts[: plan.llm_rows or len(texts)])
        llm.close()
    labels = [
        {name: value for name, label in row.labels.items() if (value := likeliest(label)) is not None} for row in rows
    ]
    fitted = fit_calibration(scores, labels, schema=schema)
    if plan.risk_thresholds is not None:
        fitted = replace(fitted, risk_thresholds=plan.risk_thresholds)
    if plan.abstain_target is None:
        return fitted
    abstain = fit_abstain(scores, labels, fitted, plan.abstain_target, schema=schema)
    if abstain is None:
        job.events.log(f"abstain: no limit reaches {plan.abstain_target:.1%} right on held-out rows, so none is set")
        return fitted
    job.events.log(
        f"abstain: below {abstain.limit:.3f} the risk goes to a human; {abstain.coverage:.1%} of the held-out rows "
        f"keep their answer, {plan.abstain_target:.1%} of them right"
    )
    return replace(fitted, abstain=abstain)


def _collect(
    job: Job,
    stage: str,
    arm: EncoderArm | LlmArm | RemoteLlm,
    scores: list[dict[str, ArmScores]],
    texts: Sequence[str],
) -> None:
    for batch in in_batches(job, stage, range(len(texts))):
        for index, found in zip(batch, arm.score([texts[index] for index in batch]), strict=True):
            if found is not None:
                scores[index][found.arm] = found


def judge(job: Job, stage: str, classifier: api.Classifier, sets: Sets) -> dict[str, Any]:
    """Figures on all test rows, on those of the bank and those from feedback, and on the feedback learned from."""
    return judge_answers(sets, answer_rows(job, stage, classifier, sets))


def answer_rows(job: Job, stage: str, classifier: api.Classifier, sets: Sets) -> list[Mapping[str, str]]:
    """The labels of each row of `sets.test`, then of `sets.learned`; empty for a text that could not be scored."""
    answers: list[Mapping[str, str]] = []
    for batch in in_batches(job, stage, [*sets.test, *sets.learned]):
        answers += [decision.labels for decision in classifier.decide([row.text for row in batch])]
    return answers


def judge_answers(sets: Sets, answers: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The figures of `judge` from the answers of `answer_rows`."""
    pairs = list(zip([*sets.test, *sets.learned], answers, strict=True))
    test, learned = pairs[: len(sets.test)], pairs[len(sets.test) :]
    return {
        "test": _figures(test),
        "test_bank": _figures([pair for pair in test if pair[0].source != "feedback"]),
        "test_feedback": _figures([pair for pair in test if pair[0].source == "feedback"]),
        "learned_feedback": _figures(learned),
    }


def ablate(job: Job, classifier: api.Classifier, bundle: Path, given: Given) -> dict[str, Any]:
    """What each part of the bundle contributes, for its release. Raises Stopped between two batches."""

    def report(stage: str, done: int, total: int) -> None:
        if job.stop.is_set:
            raise Stopped
        job.events.progress(stage, done, total)

    return make_report(classifier, bundle, given, report=report)


def _figures(pairs: Sequence[tuple[Row, Mapping[str, str]]]) -> dict[str, Any]:
    figures = score_labels([row.labels for row, _ in pairs], [answer for _, answer in pairs], load_schema())
    return {**figures, "rows": len(pairs), "unscored": sum(not answer for _, answer in pairs)}


def golden_gate(classifier: api.Classifier) -> Gate:
    failures = api.check_golden(classifier)
    total = len(api.GOLDEN_STATEMENTS)
    wrong = len({item.text for item in failures})
    why = "the five statements must never come out wrong"
    return Gate("five statements", not failures, f"{total - wrong} of {total}", f"{total} of {total}", why)
