from django.urls import path

from feedback.api import annotations, cases, documents, schema, training

app_name = "api"
urlpatterns = [
    path("documents", documents.Documents.as_view(), name="documents"),
    path("documents/<int:pk>", documents.OneDocument.as_view(), name="document"),
    path("classify", documents.Classify.as_view(), name="classify"),
    path("annotations/claim", annotations.ClaimAnnotations.as_view(), name="claim-annotations"),
    path("annotations", annotations.Annotations.as_view(), name="annotations"),
    path("annotations/<int:pk>", annotations.OneAnnotation.as_view(), name="annotation"),
    path("feedback/export", annotations.ExportFeedback.as_view(), name="export-feedback"),
    path("feedback/import", annotations.ImportFeedback.as_view(), name="import-feedback"),
    path("cases", cases.Cases.as_view(), name="cases"),
    path("cases/claim", cases.ClaimCase.as_view(), name="claim-case"),
    path("cases/<int:pk>/reveal", cases.RevealCase.as_view(), name="reveal-case"),
    path("cases/<int:pk>/decide", cases.DecideCase.as_view(), name="decide-case"),
    path("cases/<int:pk>/hand-back", cases.HandBackCase.as_view(), name="hand-back-case"),
    path("runs", training.Runs.as_view(), name="runs"),
    path("runs/<int:pk>", training.OneRun.as_view(), name="run"),
    path("runs/<int:pk>/cancel", training.CancelRun.as_view(), name="cancel-run"),
    path("releases", training.Releases.as_view(), name="releases"),
    path("releases/<int:pk>/roll-back", training.RollBack.as_view(), name="roll-back"),
    path("schema", schema.LabelSchema.as_view(), name="schema"),
    path("openapi.json", schema.OpenApi.as_view(), name="openapi"),
]
