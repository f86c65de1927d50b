"""Reads: querysets and small values. Who may see them is the question of `access`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Count, F, Lookup, Max, Q, QuerySet, TextField
from django.utils import timezone

from feedback import ml
from feedback.errors import InvalidInput
from feedback.models import (
    Annotation,
    Assignment,
    AuditEvent,
    Document,
    IntakeBatch,
    Invitation,
    Person,
    Prediction,
    RiskCase,
    RuleChange,
    RuleDraft,
    RuleTryout,
)
from feedback.models.labels import SCHEMA
from feedback.services.annotation import UNDO_DEPTH, UNDOABLE


@TextField.register_lookup
class ILike(Lookup):
    """`ILIKE`, which the trigram index serves; Django's icontains compares in upper case and reads every row."""

    lookup_name = "ilike"

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        left, left_params = self.process_lhs(compiler, connection)
        right, right_params = self.process_rhs(compiler, connection)
        return f"{left} ILIKE {right}", (*left_params, *right_params)


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Blank means any. `q` is a part of the text."""

    state: str = ""
    risk: str = ""
    emotion: str = ""
    q: str = ""

    def check(self) -> None:
        """Raises InvalidInput or SchemaError for a value that no document can have."""
        if self.state and self.state not in Document.State.values:
            raise InvalidInput(f"state must be one of {', '.join(Document.State.values)}")
        for name in ("risk", "emotion"):
            if value := getattr(self, name):
                SCHEMA[name].index(value)
        if "\x00" in self.q:
            raise InvalidInput("q holds a NUL character")


def list_documents(wanted: DocumentFilter | None = None) -> QuerySet[Document]:
    """With the newest prediction and its release; the caller orders and cuts."""
    wanted = wanted or DocumentFilter()
    wanted.check()
    documents = Document.objects.select_related("prediction__release")
    if wanted.state:
        documents = documents.filter(state=wanted.state)
    if wanted.risk:
        documents = documents.filter(prediction__risk=wanted.risk)
    if wanted.emotion:
        documents = documents.filter(prediction__emotion=wanted.emotion)
    if wanted.q:
        documents = documents.filter(text__ilike=f"%{_escape_like(wanted.q)}%")
    return documents


def documents_by_hash(hashes: Sequence[str]) -> QuerySet[Document]:
    return Document.objects.filter(text_hash__in=hashes).select_related("prediction__release")


def _escape_like(part: str) -> str:
    return part.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")


def list_predictions(document: Document) -> QuerySet[Prediction]:
    """Every release's answer, the newest first."""
    return document.predictions.select_related("release").order_by("-release_id")


def list_annotations(document: Document) -> QuerySet[Annotation]:
    """What stands, the newest first."""
    return document.annotations.filter(undone_at=None).select_related("person", "prediction__release").order_by("-pk")


def documents_in_hand(person: Person) -> QuerySet[Document]:
    """What the person holds a live lease on, the most urgent first."""
    held = Assignment.objects.filter(person=person, expires_at__gt=timezone.now())
    documents = Document.objects.filter(pk__in=held.values("document"), answers__lt=F("answers_wanted"))
    return documents.select_related("prediction__release").order_by("-priority", "id")


def own_annotations(person: Person) -> QuerySet[Annotation]:
    """The person's standing answers, the newest first."""
    standing = Annotation.objects.filter(person=person, undone_at=None)
    return standing.select_related("document", "prediction__release").order_by("-pk")


def undoable(person: Person) -> QuerySet[Annotation]:
    """The answers that `annotation.undo_annotation` would take back, the newest first."""
    return own_annotations(person).filter(origin__in=UNDOABLE)[:UNDO_DEPTH]


@dataclass(frozen=True, slots=True)
class QueueCounts:
    unscored: int
    unscorable: int
    waiting: int
    """Scored, and wanting an answer."""
    leased: int
    """In somebody's hands now."""
    answered: int


def queue_counts() -> QueueCounts:
    wants = Q(state=Document.State.SCORED, answers__lt=F("answers_wanted"))
    counts = Document.objects.aggregate(
        unscored=Count("pk", filter=Q(state=Document.State.UNSCORED)),
        unscorable=Count("pk", filter=Q(state=Document.State.UNSCORABLE)),
        waiting=Count("pk", filter=wants),
        answered=Count("pk", filter=Q(answers__gte=F("answers_wanted"))),
    )
    return QueueCounts(leased=Assignment.objects.filter(expires_at__gt=timezone.now()).count(), **counts)


@dataclass(frozen=True, slots=True)
class FeedbackCounts:
    """Standing annotations by verdict."""

    correct: int
    corrected: int
    incorrect: int
    unsure: int
    skip: int

    @property
    def usable(self) -> int:
        """Those that say which labels are right."""
        return self.correct + self.corrected


def feedback_counts() -> FeedbackCounts:
    standing = Annotation.objects.filter(undone_at=None)
    by_verdict = dict(standing.order_by().values_list("verdict").annotate(n=Count("pk")))
    return FeedbackCounts(**{verdict: by_verdict.get(verdict, 0) for verdict in Annotation.Verdict.values})


@dataclass(frozen=True, slots=True)
class ReleaseAgreement:
    release: str
    answers: int
    correct: int

    @property
    def share(self) -> float:
        """How often people agreed with this release on all four labels."""
        return self.correct / self.answers


def agreement_by_release() -> list[ReleaseAgreement]:
    """For every release that people have judged, the newest first."""
    judged = Annotation.objects.filter(undone_at=None, verdict__in=Annotation.ANSWERS, prediction__isnull=False)
    rows = (
        judged.order_by()
        .values(name=F("prediction__release__name"))
        .annotate(
            release_id=Max("prediction__release"),
            answers=Count("pk"),
            correct=Count("pk", filter=Q(verdict=Annotation.Verdict.CORRECT)),
        )
        .order_by("-release_id")
    )
    return [ReleaseAgreement(row["name"], row["answers"], row["correct"]) for row in rows]


def open_cases() -> QuerySet[RiskCase]:
    """Undecided, in the order in which they are handed out; without the text, which only `moderation.reveal` gives."""
    return list_cases().filter(decided_at=None).order_by("-band", "due_at", "-score", "pk")


def list_cases() -> QuerySet[RiskCase]:
    return RiskCase.objects.select_related("document", "claimed_by").defer("document__text")


@dataclass(frozen=True, slots=True)
class CaseCounts:
    """Undecided cases."""

    high: int
    medium: int
    unscored: int
    overdue: int
    supervisor: int

    @property
    def total(self) -> int:
        return self.high + self.medium + self.unscored


def case_counts() -> CaseCounts:
    counts = RiskCase.objects.filter(decided_at=None).aggregate(
        high=Count("pk", filter=Q(band=RiskCase.Band.HIGH)),
        medium=Count("pk", filter=Q(band=RiskCase.Band.MEDIUM)),
        unscored=Count("pk", filter=Q(band=RiskCase.Band.UNSCORED)),
        overdue=Count("pk", filter=Q(due_at__lt=timezone.now())),
        supervisor=Count("pk", filter=Q(outcome=RiskCase.Outcome.NEEDS_SUPERVISOR)),
    )
    return CaseCounts(**counts)


def list_batches() -> QuerySet[IntakeBatch]:
    return IntakeBatch.objects.select_related("created_by").order_by("-pk")


def list_people() -> QuerySet[Person]:
    return Person.objects.prefetch_related("groups").order_by("username")


def list_invitations() -> QuerySet[Invitation]:
    return Invitation.objects.select_related("created_by", "accepted_by").order_by("-pk")


def list_audit_events() -> QuerySet[AuditEvent]:
    return AuditEvent.objects.select_related("actor").order_by("-pk")


RULE_VERDICTS = """
SELECT rule, release_id, scopes, emotion, sentiment, stress, risk, COUNT(*)
FROM (
    SELECT item->>'rule' AS rule, prediction.release_id, annotation.emotion, annotation.sentiment, annotation.stress,
        annotation.risk, ARRAY_AGG(DISTINCT item->>'scope') AS scopes
    FROM feedback_annotation annotation
    JOIN feedback_prediction prediction ON prediction.id = annotation.prediction_id
    CROSS JOIN LATERAL jsonb_array_elements(prediction.evidence) item
    WHERE annotation.undone_at IS NULL AND annotation.verdict = ANY(%s)
    GROUP BY annotation.id, rule, prediction.release_id
) hits
GROUP BY rule, release_id, scopes, emotion, sentiment, stress, risk
"""
"""Annotations of texts in which a rule was seen, each counted once for a rule, summed up by what they say."""

RECENT_HITS = """
SELECT item->>'rule', COUNT(DISTINCT prediction.id)
FROM (SELECT id, evidence FROM feedback_prediction ORDER BY id DESC LIMIT %s) prediction
CROSS JOIN LATERAL jsonb_array_elements(prediction.evidence) item
GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class RuleVerdicts:
    """So many annotations that say the same of a text in which a rule was seen in these scopes."""

    rule: str
    release_id: int
    scopes: Sequence[str]
    labels: Mapping[str, str]
    count: int


def measure_rules(rules: ml.RuleSet) -> dict[str, ml.Precision]:
    """Rule id -> precision over the annotated hits of that very form of the rule, whichever release saw them."""
    by_id = {rule.id: rule for rule in rules.rules}
    verdicts = _rule_verdicts()
    releases = ml.list_releases().filter(pk__in={row.release_id for row in verdicts})
    forms = {release.pk: ml.list_fingerprints(release) for release in releases}
    hits, confirmed = Counter[str](), Counter[str]()
    for row in verdicts:
        rule = by_id.get(row.rule)
        if rule is None or forms[row.release_id].get(rule.id) != rule.fingerprint:
            continue
        was_right = judge_hit(rule, row, rules.scopes.clearing)
        if was_right is not None:
            hits[rule.id] += row.count
            confirmed[rule.id] += row.count * was_right
    return {rule: ml.estimate_precision(confirmed[rule], count) for rule, count in hits.items()}


def judge_hit(rule: ml.Rule, row: RuleVerdicts, clearing: frozenset[str]) -> bool | None:
    """Whether people confirm what a rule says; None where the rule or the people say nothing.

    A block rule claims its floor, an allow rule its labels, a hint that the risk is medium or more.
    """
    if rule.kind == "allow":
        return _judge_allow(rule, row)
    if rule.kind == "block" and all(scope in clearing and scope not in rule.ignores for scope in row.scopes):
        return None
    if "risk" not in row.labels:
        return None
    return SCHEMA.is_at_least("risk", row.labels["risk"], rule.floor or "medium")


def _judge_allow(rule: ml.Rule, row: RuleVerdicts) -> bool | None:
    known = {name: value for name, value in row.labels.items() if name in rule.labels}
    if known:
        return all(rule.labels[name] == value for name, value in known.items())
    # "Incorrect" without more: the labels were the rule's own where it had force.
    return None if ml.TRIAL in row.scopes else False


LABEL_COLUMNS = ("emotion", "sentiment", "stress", "risk")
"""In the order of RULE_VERDICTS."""


def _rule_verdicts() -> list[RuleVerdicts]:
    with connection.cursor() as cursor:
        cursor.execute(RULE_VERDICTS, [[str(verdict) for verdict in Annotation.ANSWERS]])
        rows = cursor.fetchall()
    return [
        RuleVerdicts(rule, release_id, scopes, _known_labels(labels), count)
        for rule, release_id, scopes, *labels, count in rows
    ]


def _known_labels(values: Sequence[str]) -> dict[str, str]:
    return {name: value for name, value in zip(LABEL_COLUMNS, values, strict=True) if value}


def recent_hits(predictions: int = 10_000) -> dict[str, int]:
    """Rule id -> in how many of the newest predictions it was seen."""
    with connection.cursor() as cursor:
        cursor.execute(RECENT_HITS, [predictions])
        return dict(cursor.fetchall())


def list_drafts() -> QuerySet[RuleDraft]:
    """Without the files, which are long."""
    return RuleDraft.objects.select_related("author", "base", "run").defer("files").order_by("-pk")


def newest_tryout(draft: RuleDraft) -> RuleTryout | None:
    return draft.tryouts.defer("suite").order_by("-pk").first()


def list_changes(tryout: RuleTryout, kind: str = "") -> QuerySet[RuleChange]:
    changes = tryout.changes.select_related("document")
    return changes.filter(kinds__contains=[kind]) if kind else changes


@dataclass(frozen=True, slots=True)
class QueuedRun:
    run: ml.TrainingRun
    ahead: int
    """Runs before it: one worker does one after the other."""


def list_queue() -> list[QueuedRun]:
    """Runs that work or wait, in the order in which they will be done."""
    states = ml.TrainingRun.State
    waiting = list(ml.list_runs().filter(state__in=(states.RUNNING, states.QUEUED)).order_by("pk"))
    ordered = sorted(waiting, key=lambda run: (run.state != states.RUNNING, run.pk))
    return [QueuedRun(run, place) for place, run in enumerate(ordered)]
