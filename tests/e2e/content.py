"""Texts written for the tests, with predictions that look like those of a real release."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from feedback.models import Document, RiskCase
from feedback.models.labels import SCHEMA
from feedback.services import annotation, moderation
from tests.ablation_report import make_ablation_report
from tests.cast import Cast, setup_annotation, setup_batch, setup_document, setup_release, spread

# Text, emotion, sentiment, stress, risk, and the piece of the text that a rule saw with the rule's kind.
TEXTS: tuple[tuple[str, str, str, str, str, tuple[str, str] | None], ...] = (
    (
        "My sister stopped answering on Sunday and her last message was that everyone would be better off. "
        "I don't know who to call.",
        "stress",
        "negative",
        "high",
        "high",
        ("everyone would be better off", "block"),
    ),
    (
        "I keep thinking it would be easier not to wake up.",
        "self_harm_low",
        "negative",
        "medium",
        "medium",
        ("easier not to wake up", "block"),
    ),
    (
        "Two years since my attempt. I'm a dad now. Some days are hard, most days I'm glad I'm here.",
        "self_harm_low",
        "positive",
        "low",
        "low",
        ("my attempt", "hint"),
    ),
    ("this printer will be the death of me lol", "neutral", "negative", "low", "none", ("the death of me", "hint")),
    (
        "They cut my hours by text message. Eleven years. By text.\n\n"
        "I stood in the car park until the lights went off and then I walked home, because I could not think of "
        "anything to say to anyone on the bus. Rent is up eighteen percent. Tell me again how to budget my way out.",
        "stress",
        "negative",
        "high",
        "low",
        None,
    ),
    (
        "Got the job!!! Start Monday, mum cried on the phone, I cried in the car park",
        "positive",
        "positive",
        "low",
        "none",
        None,
    ),
    (
        "Grandad's chair is still by the window. Nobody sits in it. I made his tea by mistake this morning.",
        "sadness",
        "negative",
        "medium",
        "low",
        None,
    ),
    (
        "Reminder: the fire drill is Thursday at ten. Leave your bags, use the east stairs.",
        "neutral",
        "neutral",
        "low",
        "none",
        None,
    ),
    (
        "Nobody would notice for days if I was gone, and honestly that sounds restful.",
        "self_harm_low",
        "negative",
        "medium",
        "medium",
        ("if I was gone", "block"),
    ),
    (
        "Exam in 9 hours, three chapters left, hands shaking. whyyy did I leave it this late",
        "stress",
        "negative",
        "high",
        "low",
        None,
    ),
    ("I will marry her", "positive", "positive", "low", "none", ("marry her", "allow")),
    ("Since the divorce the evenings are very long.", "sadness", "negative", "medium", "low", None),
    (
        "Finished the half marathon in 2:11, legs are dead, spirit immortal.",
        "positive",
        "positive",
        "low",
        "none",
        ("legs are dead", "hint"),
    ),
    (
        "The customer threw the coffee at the wall and my manager gave HIM a voucher.",
        "stress",
        "negative",
        "medium",
        "low",
        None,
    ),
)


def setup_content(cast: Cast) -> list[Document]:
    """A working day: scored texts, some answers, cases on the clock, one text that could not be scored."""
    setup_release()
    batch = setup_batch(
        name="documents.jsonl",
        accepted=len(TEXTS),
        refused=2,
        created_by=cast.ada,
        problems=[
            {"row": 7, "field": "text", "reason": "the text is empty"},
            {"row": 9, "field": "row", "reason": "broken JSON at character 14: Expecting ',' delimiter"},
        ],
    )
    documents = [setup_text(*row, batch=batch) for row in TEXTS]
    broken = setup_document(text="∅" * 40, state=Document.State.UNSCORED, batch=batch)
    broken.state = Document.State.UNSCORABLE
    broken.save(update_fields=["state"])
    for document, verdict in zip(documents[-4:], ("correct", "corrected", "unsure", "correct"), strict=True):
        labels = {"risk": "medium", "emotion": "stress"} if verdict == "corrected" else {}
        setup_annotation(
            cast.bo,
            document=document,
            verdict=verdict,
            labels=labels,
            comment="reads worse than it is" if labels else "",
        )
    annotation.flag_document(documents[4], by=cast.bo, note="second text by this person this week")
    age_cases()
    return documents


def setup_text(
    text: str, emotion: str, sentiment: str, stress: str, risk: str, seen: tuple[str, str] | None, **overrides: Any
) -> Document:
    labels = {"emotion": emotion, "sentiment": sentiment, "stress": stress, "risk": risk}
    number = len(text)
    evidence = []
    if seen:
        start = text.index(seen[0])
        evidence = [
            {"rule": "example-rule", "kind": seen[1], "start": start, "end": start + len(seen[0]), "scope": "plain"}
        ]
    other = dict(labels)
    if number % 3 == 0:  # the arms disagree now and then
        other["emotion"] = "sadness" if emotion != "sadness" else "stress"
    return setup_document(
        text=text,
        labels=labels,
        probabilities=spread(labels, top=0.52 + (number % 45) / 100),
        arms=[
            {"arm": "bert", "probabilities": spread(other, top=0.6), "latency_ms": 7.4},
            {"arm": "llm", "probabilities": spread(labels, top=0.7), "latency_ms": 181.0},
        ],
        evidence=evidence,
        **overrides,
    )


def age_cases() -> None:
    """Some opened a while ago, one of them too long ago."""
    for minutes, case in zip((19, 3, 130, 41), RiskCase.objects.order_by("-band", "pk"), strict=False):
        case.opened_at -= timedelta(minutes=minutes)
        case.due_at -= timedelta(minutes=minutes)
        case.save(update_fields=["opened_at", "due_at"])
    moderation.tick()


def setup_runs(cast: Cast) -> list[Any]:
    """One run that trains, one that failed, one whose release serves."""
    from training.models import DatasetSnapshot, ModelVersion, Release, TrainingRun

    snapshot = DatasetSnapshot.objects.create(
        content_hash="a" * 64, uri="snapshots/aa", rows=3152, manifest={"rows": {"train": 2410}}, created_by=cast.ada
    )
    series = [{"step": step, "name": "loss", "value": 1.9 * 0.986**step + 0.25} for step in range(1, 121)]
    series += [{"step": step, "name": "val_loss", "value": 1.8 * 0.985**step + 0.38} for step in range(20, 121, 20)]
    options = {"epochs": 3, "batch_size": 32, "learning_rate": 0.0005, "lora_rank": 16, "start_from": "serving"}
    code = {"heed": "1f0c2ab94d7e", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.0", "trl": "1.12.0"}
    config = {"options": options, "code": code}
    common = {"kind": "bert", "snapshot": snapshot, "created_by": cast.ada, "config": config}
    now = timezone.now()
    done = TrainingRun.objects.create(
        **common,
        state="succeeded",
        stage="released",
        progress=1.0,
        series=series + reward_series(),
        metrics={"loss": 0.59, "val_loss": 0.67, "cost": {"train_s": 431.0, "peak_mb": 1384.0}, "samples": SAMPLES},
        attempt=1,
        started_at=now,
        finished_at=now,
    )
    failed = TrainingRun.objects.create(
        **common, state="failed", stage="train", progress=0.31, series=series[:40], attempt=2,
        error="the job ended with code 1: it ran out of memory. A smaller batch size or fewer tokens would help.",
        log_tail="start: 3152 rows, 3 epochs\nstep 40 of 297, loss 1.31\nMemoryError",
    )  # fmt: skip
    running = TrainingRun.objects.create(
        **common, state="running", stage="train", progress=0.42, eta_s=171.0, series=series, attempt=1, started_at=now,
        log_tail="\n".join(f"step {step} of 297, loss {1.9 * 0.986**step + 0.25:.3f}" for step in range(80, 121, 10)),
    )  # fmt: skip
    TrainingRun.objects.create(kind="label_ppo", snapshot=snapshot, created_by=cast.ada, config={"options": {}})
    version = ModelVersion.objects.create(arm="bert", run=done, uri="versions/1", content_hash="b" * 64)
    gates = [
        {
            "name": "five_statements",
            "passed": True,
            "value": "5 of 5",
            "bar": "5 of 5",
            "why": "None of the five came out wrong.",
        },
        {
            "name": "missed_risk",
            "passed": True,
            "value": 0.041,
            "bar": 0.058,
            "why": "Fewer texts at risk are missed than by r0001.",
        },
        {
            "name": "false_alarm",
            "passed": True,
            "value": 0.092,
            "bar": 0.097,
            "why": "Not more false alarms than before.",
        },
    ]
    newest = Release.objects.order_by("-id").first()
    Release.objects.create(
        name="r0042", kind="training", bundle_uri="bundles/2", manifest_hash="c" * 64, previous=newest, version=version,
        created_by=cast.ada, report={"gates": gates, "ablation": make_ablation_report()}, reason="all gates passed",
    )  # fmt: skip
    return [running, failed, done]


SAMPLES = {
    "rows": 600,
    "better": 31,
    "worse": 4,
    "shown": [
        {
            "row": "plain-f07-0412", "source": "bank", "gain": -1.0, "wanted": {"emotion": "stress", "risk": "low"},
            "before": {"emotion": "stress", "risk": "low"}, "after": {"emotion": "sadness", "risk": "low"},
        },
        {
            "row": "feedback-3fa9c1d204b7e655", "source": "feedback", "gain": 3.0,
            "wanted": {"risk": "medium", "stress": "high"},
            "before": {"risk": "none", "stress": "low"}, "after": {"risk": "medium", "stress": "high"},
        },
    ],
}  # fmt: skip


def reward_series() -> list[dict[str, Any]]:
    """As a run of reinforcement learning leaves it."""
    steps = range(1, 121)
    rewards = [{"step": step, "name": "reward", "value": 0.8 - 0.9 * 0.98**step} for step in steps]
    held_out = [
        {"step": step, "name": "held_out_reward", "value": 0.7 - 0.8 * 0.98**step} for step in range(20, 121, 20)
    ]
    divergence = [{"step": step, "name": "kl", "value": 0.12 * (1 - 0.97**step)} for step in steps]
    return rewards + held_out + divergence


def risk_names() -> tuple[str, ...]:
    return SCHEMA["risk"].names
