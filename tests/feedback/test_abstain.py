"""A text of uncertain risk, from the inference server to the moderator who decides it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from classifier.bundle import BundleParts, build_bundle
from classifier.hybrid import Abstain
from feedback.models import Annotation, Document, RiskCase
from feedback.services import moderation
from feedback.services.moderation import CaseAnswer
from feedback.services.records import feedback_records
from feedback.services.scoring import score_documents
from tests.cast import Cast, setup_cast, setup_document, setup_release
from tests.inference import TOKEN, InferenceProcess

pytestmark = pytest.mark.django_db

UNCERTAIN = "the bus was late and I am tired"
"""The toy bundle gives its own risk label 0.84; of the golden statements it is sure beyond 0.99."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    """It answers only what it is sure of beyond doubt."""
    process = InferenceProcess(tmp_path_factory.mktemp("abstain"))
    plain = process.make_bundle("toy")
    parts = BundleParts.from_bundle(plain, name="toy-abstain")
    abstain = Abstain(target=0.99, limit=0.97, coverage=0.1)
    build_bundle(
        process.bundles / "toy-abstain", replace(parts, calibration=replace(parts.calibration, abstain=abstain))
    )
    process.point_to("r-abstain", process.bundles / "toy-abstain")
    process.start()
    yield process
    process.stop()


@pytest.fixture
def cast(server: InferenceProcess, settings: Any) -> Cast:
    settings.INFERENCE_URL, settings.INFERENCE_TOKEN = server.url, TOKEN
    setup_release(name="r-abstain")
    return setup_cast()


def score(text: str) -> Document:
    document = setup_document(text=text, state=Document.State.UNSCORED)
    assert score_documents([document.pk]) == 1
    document.refresh_from_db()
    return document


def test_goes_to_a_moderator_whose_decision_becomes_a_correction(cast: Cast) -> None:
    document = score(UNCERTAIN)
    assert document.prediction is not None
    assert document.prediction.unscored_reason == "uncertain"
    assert document.prediction.labels.get("risk", "") == ""
    case = RiskCase.objects.get(document=document)
    assert (case.band, case.reason) == (RiskCase.Band.UNSCORED, RiskCase.Reason.UNSCORED)
    assert case.score == pytest.approx(document.prediction.risk_probability())
    claimed = moderation.claim_next(cast.mo)
    assert claimed is not None
    assert claimed.claim_token is not None
    answer = CaseAnswer(claimed.claim_token, claimed.version, document.text_hash, "not_at_risk", risk="low")
    moderation.decide_case(case.pk, answer, by=cast.mo)
    assert Annotation.objects.get(document=document).labels["risk"] == "low"
    assert [record.text for record in feedback_records()] == [document.text]


def test_page_says_why_there_is_no_answer(cast: Cast, client: Client) -> None:
    document = score(UNCERTAIN)
    client.force_login(cast.ana)
    html = client.get(f"/documents/{document.pk}/").content.decode()
    assert "too uncertain of the risk of this text" in html


def test_what_it_is_sure_of_is_answered(cast: Cast) -> None:
    assert score("I will marry her").state == Document.State.SCORED
