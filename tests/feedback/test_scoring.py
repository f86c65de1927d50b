from __future__ import annotations

import pytest
from pytest_django import Settings

from feedback import ml, tasks
from feedback.models import AuditEvent, Document, Prediction, RiskCase
from feedback.services.scoring import keep_decisions, priority_of, score_documents
from tests.cast import AT_RISK, LABELS, setup_document, setup_prediction, setup_release, spread
from tests.feedback.threads import run_together

UNSCORED = Document.State.UNSCORED


def decision(labels: dict[str, str] | None = None, *, release: str, **fields: object) -> ml.Decision:
    labels = LABELS | (labels or {})
    return ml.Decision(release=release, labels=labels, probabilities=spread(labels), **fields)  # type: ignore[arg-type]


@pytest.fixture
def release(db: None) -> str:
    return setup_release().name


class TestKeeping:
    def test_document_gets_prediction_state_and_priority(self, release: str) -> None:
        document = setup_document(state=UNSCORED)
        keep_decisions([document], [decision({"risk": "low"}, release=release)])
        document.refresh_from_db()
        assert document.state == Document.State.SCORED
        assert document.prediction is not None
        assert document.prediction.labels == LABELS | {"risk": "low"}
        assert document.priority > 0

    def test_unscorable_text_goes_to_a_moderator_and_not_to_annotators(self, release: str) -> None:
        document = setup_document(state=UNSCORED)
        keep_decisions([document], [ml.Decision(release=release, unscored="too_long: 9000 tokens")])
        document.refresh_from_db()
        assert document.state == Document.State.UNSCORABLE
        assert RiskCase.objects.get().band == RiskCase.Band.UNSCORED

    def test_same_answer_twice_is_kept_once(self, release: str) -> None:
        document = setup_document(state=UNSCORED)
        for _ in range(2):
            keep_decisions([document], [decision(AT_RISK, release=release)])
        assert (Prediction.objects.count(), RiskCase.objects.count()) == (1, 1)
        assert AuditEvent.objects.filter(verb="open_case").count() == 1

    def test_late_answer_of_an_older_release_does_not_replace_a_newer_one(self, release: str) -> None:
        document = setup_document(state=UNSCORED)
        newer = setup_release(name="newer").name
        keep_decisions([document], [decision({"risk": "low"}, release=newer)])
        keep_decisions([document], [decision({"stress": "high"}, release=release)])
        document.refresh_from_db()
        assert document.prediction is not None
        assert document.prediction.release.name == newer
        assert document.predictions.count() == 2

    def test_release_that_the_history_does_not_know_leaves_the_text_waiting(self, release: str) -> None:
        document = setup_document(state=UNSCORED)
        with pytest.raises(ml.InferenceUnavailable, match="not in the release history"):
            keep_decisions([document], [decision(release="stranger")])
        document.refresh_from_db()
        assert document.state == UNSCORED

    @pytest.mark.django_db(transaction=True)
    def test_two_workers_at_once_open_one_case(self) -> None:
        name = setup_release().name
        documents = [setup_document(state=UNSCORED) for _ in range(10)]
        answers = [decision(AT_RISK, release=name) for _ in documents]
        assert run_together(*[lambda: keep_decisions(documents, answers)] * 4) == [None] * 4
        assert (Prediction.objects.count(), RiskCase.objects.count()) == (10, 10)
        assert AuditEvent.objects.filter(verb="open_case").count() == 10


class TestPriority:
    def test_follows_the_written_formula(self, release: str) -> None:
        one_arm = [{"probabilities": spread(LABELS, top=0.7)}]
        sure = setup_prediction(probabilities=spread(LABELS, top=0.7), arms=one_arm)
        # P(risk >= medium) = 2 * 0.1 = 0.2 -> 4 steps; uncertainty 0.3 -> 6 steps; no second arm to disagree with.
        assert priority_of(sure) == pytest.approx(441 * 4 + 21 * 6, abs=1e-9)

    def test_disagreement_is_the_distance_of_the_arms(self, release: str) -> None:
        other = {name: dict.fromkeys(row, 0.0) for name, row in spread(LABELS).items()}
        for row in other.values():
            row[list(row)[-1]] = 1.0
        one = {name: {value: float(value == LABELS[name]) for value in row} for name, row in other.items()}
        both = setup_prediction(probabilities=one, arms=[{"probabilities": one}, {"probabilities": other}])
        assert priority_of(both) == pytest.approx(20.0, abs=1e-9)  # all mass moved, in every dimension

    def test_risk_outweighs_uncertainty(self, release: str) -> None:
        risky = setup_prediction(labels=AT_RISK)
        unsure = setup_prediction(probabilities=spread(LABELS, top=0.4))
        assert priority_of(risky) > priority_of(unsure)


class TestAskingTheServer:
    @pytest.fixture(autouse=True)
    def serving(self, inference: object, db: None) -> str:
        status = ml.inference_status()
        assert status is not None
        return setup_release(name=status.release).name

    def test_scores_what_waits(self, serving: str) -> None:
        documents = [setup_document(state=UNSCORED) for _ in range(70)]
        assert score_documents([document.pk for document in documents]) == 70
        assert not Document.objects.filter(state=UNSCORED).exists()
        assert set(Prediction.objects.values_list("release__name", flat=True)) == {serving}

    def test_beat_scores_what_no_task_did(self) -> None:
        document = setup_document(state=UNSCORED)
        tasks.score_waiting_task()
        document.refresh_from_db()
        assert document.state != UNSCORED

    def test_server_that_is_down_leaves_texts_waiting_until_it_is_back(self, settings: Settings) -> None:
        document = setup_document(state=UNSCORED)
        url, settings.INFERENCE_URL = settings.INFERENCE_URL, "http://127.0.0.1:9"
        with pytest.raises(ml.InferenceUnavailable, match="does not answer"):
            score_documents([document.pk])
        tasks.score_documents_task([document.pk])
        document.refresh_from_db()
        assert document.state == UNSCORED
        settings.INFERENCE_URL = url
        tasks.score_documents_task([document.pk])
        document.refresh_from_db()
        assert document.state != UNSCORED

    def test_status_names_the_serving_release(self, serving: str, settings: Settings) -> None:
        assert ml.inference_status() == ml.InferenceStatus(serving, "serving")
        settings.INFERENCE_URL = "http://127.0.0.1:9"
        assert ml.inference_status() is None
