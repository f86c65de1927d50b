"""The cast of every test, and `setup_x(**overrides)` for the rows they work on.

Ana and Bo annotate, Mo moderates, Ada is the admin; Otto is signed in without any role and must see nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import Group

from feedback.models import Annotation, ApiKey, Document, IntakeBatch, Person, Prediction, RiskCase, Role, hash_text
from feedback.models.labels import SCHEMA
from feedback.services import annotation, moderation, scoring
from training.models import Release

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Cast:
    ana: Person
    bo: Person
    mo: Person
    ada: Person
    otto: Person


def setup_cast() -> Cast:
    return Cast(
        ana=setup_person("ana", Role.ANNOTATOR),
        bo=setup_person("bo", Role.ANNOTATOR),
        mo=setup_person("mo", Role.MODERATOR),
        ada=setup_person("ada", Role.ADMIN),
        otto=setup_person("otto"),
    )


def setup_person(username: str, *roles: str) -> Person:
    """The person, made on the first call. No password: tests log in with `force_login`."""
    person, _ = Person.objects.get_or_create(username=username)
    for role in roles:
        group, _ = Group.objects.get_or_create(name=role)  # a test that truncates tables has lost the migration's rows
        person.groups.add(group)
    return Person.objects.get(pk=person.pk)


def setup_release(**overrides: Any) -> Release:
    """The serving release: the one that is there, unless overrides ask for another to follow it."""
    newest = Release.objects.order_by("-id").first()
    if newest is not None and not overrides:
        return newest
    values: dict[str, Any] = {
        "name": f"r{next(_numbers):04d}",
        "kind": Release.Kind.STARTER if newest is None else Release.Kind.TRAINING,
        "bundle_uri": "bundles/toy",
        "manifest_hash": "0" * 64,
        "previous": newest,
    }
    return Release.objects.create(**(values | overrides))


def setup_document(**overrides: Any) -> Document:
    """Scored, with a prediction of the serving release. `state="unscored"` makes one without.

    `labels`, `probabilities`, `arms` and `evidence` go to its prediction; `case=False` leaves its risk case unopened.
    """
    wanted = {
        name: overrides.pop(name) for name in ("labels", "probabilities", "arms", "evidence") if name in overrides
    }
    opens_case = overrides.pop("case", True)
    number = next(_numbers)
    values: dict[str, Any] = {"text": f"plain text number {number}", **overrides}
    values["batch"] = values.get("batch") or setup_batch()
    values.setdefault("text_hash", hash_text(values["text"]))
    document = Document.objects.create(**values)
    if document.state == Document.State.UNSCORED and "state" not in overrides:
        prediction = setup_prediction(document=document, **wanted)
        if opens_case:
            moderation.open_case(prediction)
    return document


def setup_batch(**overrides: Any) -> IntakeBatch:
    return IntakeBatch.objects.create(**({"kind": IntakeBatch.Kind.DEMO} | overrides))


LABELS = {"emotion": "neutral", "sentiment": "neutral", "stress": "low", "risk": "none"}


def setup_prediction(**overrides: Any) -> Prediction:
    """For `document`, by the serving release; `labels` override single labels, the probabilities follow them."""
    labels = LABELS | overrides.pop("labels", {})
    document: Document = overrides.pop("document", None) or setup_document(state=Document.State.UNSCORED)
    probabilities = spread(labels)
    values: dict[str, Any] = {
        "document": document,
        "release": overrides.pop("release", None) or setup_release(),
        "probabilities": probabilities,
        "arms": [{"arm": arm, "probabilities": probabilities, "latency_ms": 1.0} for arm in ("bert", "llm")],
        **labels,
    }
    prediction = Prediction.objects.create(**(values | overrides))
    priority = document.priority
    scoring.place_document(document, prediction)
    document.priority = priority or document.priority  # one that the test has set stays
    document.save(update_fields=["prediction", "state", "priority"])
    return prediction


def spread(labels: dict[str, str], *, top: float = 0.9) -> dict[str, dict[str, float]]:
    """Probabilities with `top` on the given labels and the rest shared evenly."""
    return {
        name: {
            value: top if value == labels[name] else (1 - top) / (len(SCHEMA[name].names) - 1)
            for value in SCHEMA[name].names
        }
        for name in SCHEMA.names
    }


AT_RISK = {"emotion": "self_harm_high", "sentiment": "negative", "stress": "high", "risk": "high"}


def setup_case(**overrides: Any) -> RiskCase:
    """An open case of a document at risk; overrides go to the document."""
    document = setup_document(**({"labels": AT_RISK} | overrides))
    return RiskCase.objects.get(document=document)


def setup_annotation(person: Person, **overrides: Any) -> Annotation:
    """By the real door; `document` or a fresh one."""
    document = overrides.pop("document", None) or setup_document()
    values: dict[str, Any] = {"verdict": "correct", "idempotency_key": uuid4()} | overrides
    return annotation.submit_annotation(annotation.Submission(document_id=document.pk, **values), by=person)


def setup_api_key(person: Person) -> str:
    """The token, for `HTTP_AUTHORIZATION=f"Bearer {token}"`."""
    return ApiKey.issue(person=person, name="a test's key")[1]
