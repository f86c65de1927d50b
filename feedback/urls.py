"""The pages. Every name here stands in `access.ROUTES`."""

from django.urls import URLPattern, path

from feedback.views import annotate, api_keys, cases, documents, exchange, home, intake, people, releases, training

urlpatterns: list[URLPattern] = [
    path("", home.home, name="home"),
    path("about/", home.about, name="about"),
    path("guidelines/", home.guidelines, name="guidelines"),
    path("documents/", documents.documents, name="documents"),
    path("documents/<int:pk>/", documents.document, name="document"),
    path("intake/", intake.intake, name="intake"),
    path("intake/<int:pk>/", intake.batch, name="batch"),
    path("annotate/", annotate.annotate, name="annotate"),
    path("annotate/answers/", annotate.submit_annotation, name="submit-annotation"),
    path("annotate/undo/", annotate.undo_annotation, name="undo-annotation"),
    path("annotate/flags/", annotate.flag_document, name="flag-document"),
    path("annotate/claims/renew/", annotate.renew_claims, name="renew-claims"),
    path("annotate/claims/release/", annotate.release_claims, name="release-claims"),
    path("annotate/mine/", annotate.my_annotations, name="my-annotations"),
    path("feedback/", exchange.feedback, name="feedback"),
    path("feedback/import/", exchange.import_feedback, name="import-feedback"),
    path("feedback/feedback.json", exchange.export_feedback, name="export-feedback"),
    path("feedback/records.jsonl", exchange.export_records, name="export-records"),
    path("cases/", cases.cases, name="cases"),
    path("cases/next/", cases.claim_case, name="claim-case"),
    path("cases/<int:pk>/", cases.case, name="case"),
    path("cases/<int:pk>/text/", cases.reveal_case, name="reveal-case"),
    path("cases/<int:pk>/decision/", cases.decide_case, name="decide-case"),
    path("cases/<int:pk>/hand-back/", cases.hand_back_case, name="hand-back-case"),
    path("training/", training.training, name="training"),
    path("training/<int:pk>/", training.run, name="run"),
    path("training/<int:pk>/cancel/", training.cancel_run, name="cancel-run"),
    path("releases/", releases.releases, name="releases"),
    path("releases/<int:pk>/roll-back/", releases.roll_back, name="roll-back"),
    path("people/", people.people, name="people"),
    path("people/<int:pk>/active/", people.set_person_active, name="set-person-active"),
    path("people/<int:pk>/roles/", people.set_person_roles, name="set-person-roles"),
    path("invitations/<str:token>/", people.invitation, name="invitation"),
    path("api-keys/", api_keys.api_keys, name="api-keys"),
    path("api-keys/<int:pk>/revoke/", api_keys.revoke_api_key, name="revoke-api-key"),
]
