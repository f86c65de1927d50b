"""What the API takes and gives. Checks that need the database belong to the services."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from feedback.models import Annotation, Document, IntakeBatch, Prediction, RiskCase
from feedback.services.moderation import SAFE_RISKS

MAX_COMMENT_CHARACTERS = 10_000


class PredictionOut(serializers.ModelSerializer[Prediction]):
    release = serializers.CharField(source="release.name")
    labels = serializers.DictField(child=serializers.CharField())
    probabilities = serializers.DictField()
    arms = serializers.ListField(child=serializers.DictField())
    evidence = serializers.ListField(child=serializers.DictField())
    latency_ms = serializers.DictField()

    class Meta:
        model = Prediction
        fields = [
            "id",
            "release",
            "labels",
            "probabilities",
            "arms",
            "evidence",
            "risk_floor",
            "latency_ms",
            "unscored_reason",
            "created_at",
        ]


class DocumentOut(serializers.ModelSerializer[Document]):
    prediction = PredictionOut(allow_null=True)

    class Meta:
        model = Document
        fields = [
            "id",
            "external_id",
            "text",
            "text_hash",
            "state",
            "priority",
            "answers",
            "answers_wanted",
            "created_at",
            "prediction",
        ]


class ProblemOut(serializers.Serializer[Any]):
    row = serializers.IntegerField(required=False)
    field = serializers.CharField()
    reason = serializers.CharField()


class ErrorOut(serializers.Serializer[Any]):
    error = serializers.CharField()
    detail = serializers.CharField()
    rows = ProblemOut(many=True, required=False)


class DocumentIn(serializers.Serializer[Any]):
    """One text, or up to 1000 `documents`. Only for the OpenAPI page: `intake` checks the rows itself, one by one."""

    text = serializers.CharField(required=False)
    id = serializers.CharField(required=False)
    documents = serializers.ListField(child=serializers.DictField(), required=False)


class RowOut(serializers.Serializer[Any]):
    row = serializers.IntegerField()
    id = serializers.IntegerField(help_text="the document's id")
    is_new = serializers.BooleanField()
    document = DocumentOut(required=False, help_text="with ?wait=1")


class BatchOut(serializers.ModelSerializer[IntakeBatch]):
    class Meta:
        model = IntakeBatch
        fields = ["id", "kind", "name", "created_at", "accepted", "known", "refused", "problems"]


class IntakeOut(BatchOut):
    documents = RowOut(many=True)

    class Meta(BatchOut.Meta):
        fields = [*BatchOut.Meta.fields, "documents"]


class TextsIn(serializers.Serializer[Any]):
    """Either `text` or `texts`, of which there may be 1000."""

    text = serializers.CharField(required=False)
    texts = serializers.ListField(child=serializers.CharField(), required=False)


class DecisionOut(serializers.Serializer[Any]):
    release = serializers.CharField()
    labels = serializers.DictField(child=serializers.CharField())
    probabilities = serializers.DictField()
    arms = serializers.ListField(child=serializers.DictField())
    evidence = serializers.ListField(child=serializers.DictField())
    risk_floor = serializers.CharField(allow_null=True)
    latency_ms = serializers.DictField()
    unscored = serializers.CharField(allow_null=True)


class DecisionsOut(serializers.Serializer[Any]):
    decisions = DecisionOut(many=True)


class ClaimIn(serializers.Serializer[Any]):
    count = serializers.IntegerField(min_value=1, max_value=50, default=1)


class AnnotationIn(serializers.Serializer[Any]):
    document = serializers.IntegerField(min_value=1)
    verdict = serializers.ChoiceField(choices=Annotation.Verdict.values)
    idempotency_key = serializers.UUIDField(help_text="made by the client; sent again, it is the same answer")
    labels = serializers.DictField(child=serializers.CharField(), required=False)
    prediction = serializers.IntegerField(required=False, min_value=1, help_text="the judged one; the newest if absent")
    comment = serializers.CharField(required=False, allow_blank=True, max_length=MAX_COMMENT_CHARACTERS)
    active_ms = serializers.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    was_blind = serializers.BooleanField(required=False)


class AnnotationOut(serializers.ModelSerializer[Annotation]):
    document = serializers.IntegerField(source="document_id")
    prediction = serializers.IntegerField(source="prediction_id", allow_null=True)
    labels = serializers.DictField(child=serializers.CharField())
    judged_labels = serializers.DictField(child=serializers.CharField())

    class Meta:
        model = Annotation
        fields = [
            "id",
            "document",
            "prediction",
            "verdict",
            "judged_labels",
            "labels",
            "comment",
            "idempotency_key",
            "guideline_version",
            "active_ms",
            "was_blind",
            "created_at",
            "undone_at",
        ]


class CaseOut(serializers.ModelSerializer[RiskCase]):
    """A case without its text, which only its holder gets, by `reveal`."""

    band = serializers.CharField(source="get_band_display")
    document = serializers.IntegerField(source="document_id")
    claimed_by = serializers.CharField(source="claimed_by.username", allow_null=True, default=None)
    outcome = serializers.CharField(help_text="blank while nobody has decided")

    class Meta:
        model = RiskCase
        fields = [
            "id",
            "document",
            "band",
            "reason",
            "score",
            "opened_at",
            "due_at",
            "is_overdue",
            "version",
            "claimed_by",
            "claim_expires_at",
            "outcome",
            "decided_at",
        ]


class ClaimedCaseOut(CaseOut):
    class Meta(CaseOut.Meta):
        fields = [*CaseOut.Meta.fields, "claim_token"]


class TokenIn(serializers.Serializer[Any]):
    token = serializers.UUIDField()


class RevealedOut(serializers.Serializer[Any]):
    text = serializers.CharField()
    text_hash = serializers.CharField()
    version = serializers.IntegerField()
    prediction = PredictionOut(allow_null=True)


class CaseAnswerIn(TokenIn):
    version = serializers.IntegerField(min_value=1)
    text_hash = serializers.CharField(max_length=64)
    outcome = serializers.ChoiceField(choices=RiskCase.Outcome.values)
    note = serializers.CharField(required=False, allow_blank=True, max_length=MAX_COMMENT_CHARACTERS)
    risk = serializers.ChoiceField(choices=SAFE_RISKS, required=False, help_text="with not_at_risk: the right label")


class CaseDecisionOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    case = serializers.IntegerField(source="case_id")
    outcome = serializers.CharField()
    created_at = serializers.DateTimeField()


class RunIn(serializers.Serializer[Any]):
    kind = serializers.CharField(max_length=16)
    options = serializers.DictField(required=False)
    snapshot = serializers.DictField(
        required=False, help_text="what to train on: replay_rows, feedback_weight, disagreement"
    )
    publishes = serializers.BooleanField(default=True, help_text="serve the result when every gate passes")
    base = serializers.CharField(
        max_length=200, default="", allow_blank=True, help_text="name of a base model (default: the serving arm's)"
    )


class RunOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    kind = serializers.CharField()
    state = serializers.CharField()
    stage = serializers.CharField()
    progress = serializers.FloatField()
    eta_s = serializers.FloatField(allow_null=True)
    config = serializers.DictField()
    publishes = serializers.BooleanField()
    attempt = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    metrics = serializers.DictField()
    error = serializers.CharField(allow_blank=True)


class ReportField(serializers.DictField):
    """Without the ablation: it is long, and has a page and a download of its own."""

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        short = {name: item for name, item in value.items() if name != "ablation"}
        return dict(super().to_representation(short))


class ReleaseOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    kind = serializers.CharField()
    manifest_hash = serializers.CharField()
    reason = serializers.CharField(allow_blank=True)
    report = ReportField()
    created_at = serializers.DateTimeField()
    served_at = serializers.DateTimeField(allow_null=True)


class RollBackIn(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=200)


class ValueOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    key = serializers.CharField()
    description = serializers.CharField()
    guideline = serializers.CharField()


class DimensionOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    question = serializers.CharField()
    key = serializers.CharField()
    values = ValueOut(many=True)
    cost = serializers.DictField(help_text="cost[true][answered]")


class SchemaOut(serializers.Serializer[Any]):
    version = serializers.CharField()
    dimensions = DimensionOut(many=True)
