from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from feedback.models import Document, IntakeBatch


def upload(client: Client, name: str, data: bytes, path: str = "/intake/") -> str:
    response = client.post(path, {"file": SimpleUploadedFile(name, data)}, follow=True)
    assert response.status_code in (200, 400)
    return response.content.decode()


def test_paste_adds_a_text_a_line(ada: Client) -> None:
    response = ada.post("/intake/", {"texts": "one\n\n two \n"}, follow=True)
    assert response.redirect_chain[0][0] == f"/intake/{IntakeBatch.objects.get().pk}/"
    assert list(Document.objects.order_by("pk").values_list("text", flat=True)) == ["one", "two"]


def test_a_bad_row_is_named_and_the_good_ones_stay(ada: Client) -> None:
    rows = [b'{"text": "good %d"}' % n for n in range(1, 10)]
    rows[6] = b'{"text": broken'
    html = upload(ada, "nine.jsonl", b"\n".join(rows))
    assert Document.objects.count() == 8
    assert '<td class="number">7</td><td>row</td><td>broken JSON' in html


def test_csv_is_read_by_its_heading(ada: Client) -> None:
    upload(ada, "two.csv", b"id;text\n7;seven\n8;eight\n")
    assert dict(Document.objects.values_list("external_id", "text")) == {"7": "seven", "8": "eight"}
    assert IntakeBatch.objects.get().kind == "csv"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [("words.docx", b"text", "must end in .jsonl or .csv"), ("none.csv", b"", "The file is empty")],
)
def test_unusable_file_names_the_cure(ada: Client, name: str, data: bytes, reason: str) -> None:
    assert reason in upload(ada, name, data)
    assert not IntakeBatch.objects.exists()


def test_empty_paste_is_refused_in_place(ada: Client) -> None:
    response = ada.post("/intake/", {"texts": ""})
    assert response.status_code == 400
    assert b"Paste at least one text." in response.content


def test_feedback_file_comes_in_and_goes_out(ada: Client) -> None:
    row = b'[{"text": "plain", "correct_labels": "risk: none", "incorrect_labels": "risk: high", "feedback": "idiom"}]'
    html = upload(ada, "feedback.json", row, "/feedback/import/")
    assert "<b>1</b><span>accepted</span>" in html
    out = ada.get("/feedback/feedback.json")
    assert out["Content-Disposition"].startswith('attachment; filename="heed-feedback-')
    assert b'"feedback": "idiom"' in b"".join(out)
    assert b"plain" in b"".join(ada.get("/feedback/records.jsonl"))


def test_broken_feedback_file_is_refused_in_place(ada: Client) -> None:
    assert "the file is not a JSON list" in upload(ada, "feedback.json", b"[{", "/feedback/import/")


def test_moderators_add_no_texts(mo: Client) -> None:
    assert mo.get("/intake/").status_code == 403
