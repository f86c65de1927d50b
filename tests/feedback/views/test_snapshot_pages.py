"""Looking at a snapshot before and after it is frozen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

from feedback import ml
from feedback.models import AuditEvent
from tests.cast import Cast, setup_annotation, setup_document, setup_release

URL = "/training/snapshots/new/"


@pytest.fixture
def answers(cast: Cast) -> None:
    setup_release()
    for number in range(3):
        setup_annotation(cast.ana, document=setup_document(text=f"made up text {number}"))
    changed = setup_document(text="made up text 3")
    setup_annotation(cast.bo, document=changed, verdict="corrected", labels={"risk": "low"})
    for verdict in ("skip", "unsure", "incorrect"):
        setup_annotation(cast.bo, document=setup_document(text=f"text to {verdict}"), verdict=verdict)


def cells(html: str) -> set[str]:
    """First cell and the numbers after it, row by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.S)
    return {" | ".join(re.sub("<[^>]+>", "", cell).strip() for cell in re.split(r"</t[hd]>", row)[:-1]) for row in rows}


def figure(html: str, label: str) -> int:
    return int(re.findall(rf"<b>(\d+)</b><span>{label}</span>", html)[0])


def test_training_page_leads_to_the_preview(ada: Client) -> None:
    assert f'href="{URL}"'.encode() in ada.get("/training/").content


def test_preview_counts_labels_sources_and_people(ada: Client, answers: None) -> None:
    html = ada.get(URL).content.decode()
    assert {"risk: none | 3", "risk: low | 1", "feedback: web | 4 | 0 | 0"} <= cells(html)
    assert html.index("risk: none") < html.index("risk: low")
    assert figure(html, "of them feedback") == 4
    assert figure(html, "lines wanted or unwanted") == 6  # three correct, a correction of two, one incorrect
    assert figure(html, "pairs") == 1
    people = [row for row in cells(html) if row.endswith("| 100% | 0 | –")]
    assert sorted(row.split(" | ")[1:4] for row in people) == [["3", "3", "60.0%"], ["4", "2", "40.0%"]]


def test_preview_says_what_is_left_out_and_why(ada: Client, answers: None) -> None:
    found = cells(ada.get(URL).content.decode())
    for reason in ("skip", "unsure", "no_correction"):
        assert f"{ml.REASONS[reason]} | 1" in found


def test_preview_shows_no_name_and_no_text(ada: Client, answers: None) -> None:
    main = ada.get(URL).content.decode().split("<main")[1]
    assert "made up text" not in main
    assert not re.search(r">\s*(ana|bo)\s*<", main)


def test_preview_keeps_nothing(ada: Client, answers: None) -> None:
    ada.get(URL)
    assert not ml.list_snapshots().exists()
    assert not Path(settings.SNAPSHOTS_DIR).exists()


def test_freezing_makes_the_snapshot_that_was_shown(ada: Client, answers: None) -> None:
    shown = ada.get(URL, {"replay_rows": "50"}).content.decode()
    response = ada.post(URL, {"replay_rows": "50"})
    snapshot = ml.list_snapshots().get()
    assert response["Location"] == f"/training/snapshots/{snapshot.pk}/"
    assert snapshot.manifest["rows"]["train"] == figure(shown, "rows to train on") < 70
    assert str(snapshot.created_by) == "ada"
    assert AuditEvent.objects.filter(verb="freeze_snapshot", noun_id=str(snapshot.pk)).count() == 1
    page = ada.get(response["Location"]).content.decode()
    assert figure(page, "of them feedback") == 4
    assert "There is no earlier snapshot" in page


def test_preview_says_that_the_content_is_there(ada: Client, answers: None) -> None:
    ada.post(URL)
    html = ada.get(URL).content.decode()
    assert "has this very content" in html
    assert "Nothing differs" in html


def test_preview_shows_what_differs_from_the_last(ada: Client, cast: Cast, answers: None) -> None:
    ada.post(URL)
    setup_annotation(cast.ana, document=setup_document(text="one more text"))
    html = ada.get(URL).content.decode()
    assert {"feedback rows: train | 4 | 5", "verdicts: correct | 3 | 4"} <= cells(html)
    ada.post(URL)
    newest = ml.list_snapshots()[0]
    assert "feedback rows: train | 4 | 5" in cells(ada.get(f"/training/snapshots/{newest.pk}/").content.decode())


def test_a_text_stays_on_its_side_from_snapshot_to_snapshot(ada: Client, cast: Cast) -> None:
    setup_release()
    for number in range(12):
        setup_annotation(cast.ana, document=setup_document(text=f"qvx text {number}"))
    ada.post(URL, {"replay_rows": "1"})
    for number in range(12, 40):
        setup_annotation(cast.ana, document=setup_document(text=f"qvx text {number}"))
    ada.post(URL, {"replay_rows": "1"})
    after, before = (Path(snapshot.uri) for snapshot in ml.list_snapshots())
    [held_out] = [line for line in (before / "test.jsonl").read_text().splitlines() if "qvx" in line]
    assert held_out in (after / "test.jsonl").read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [("influence_cap", "2"), ("feedback_weight", "0"), ("disagreement", "loud"), ("replay_rows", "x")],
)
def test_odd_option_is_refused_beside_its_field(ada: Client, answers: None, name: str, value: str) -> None:
    for response in (ada.get(URL, {name: value}), ada.post(URL, {name: value})):
        assert response.status_code == 400
        assert f'id="id_{name}_error"' in response.content.decode()
    assert not ml.list_snapshots().exists()


def test_a_snapshot_without_counts_of_people_still_has_a_page(ada: Client, cast: Cast) -> None:
    from training.models import DatasetSnapshot

    old = DatasetSnapshot.objects.create(content_hash="a" * 64, uri="gone", rows=7, manifest={"rows": {"train": 7}})
    assert b"Snapshot #" in ada.get(f"/training/snapshots/{old.pk}/").content


def test_moderators_see_no_snapshot(mo: Client, answers: None) -> None:
    assert mo.get(URL).status_code == mo.post(URL).status_code == 403
