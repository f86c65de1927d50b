"""The demo: texts written for it, and one person of each role with a password made up on the spot."""

import json
import secrets
from pathlib import Path

from django.conf import settings
from django.db import transaction

from feedback.models import IntakeBatch, Person, Role
from feedback.services import intake
from feedback.services.people import create_person

DOCUMENTS = Path(__file__).resolve().parent.parent / "demo" / "documents.jsonl"
PEOPLE = {"ana": Role.ANNOTATOR, "mo": Role.MODERATOR, "ada": Role.ADMIN}


def make_demo_people() -> list[Person]:
    """Those of the demo people who are missing. Their passwords go to VAR_DIR/demo_people.json, for the owner alone."""
    known = set(Person.objects.filter(username__in=PEOPLE).values_list("username", flat=True))
    path = Path(settings.VAR_DIR) / "demo_people.json"
    written = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    made = []
    with transaction.atomic():
        for username, role in PEOPLE.items():
            if username in known:
                continue
            password = secrets.token_urlsafe(12)
            made.append(create_person(username, role=role, password=password))
            written = [one for one in written if one["username"] != username]
            written.append({"username": username, "role": role.value, "password": password})
        if made:
            path.touch(mode=0o600)
            path.write_text(json.dumps(written, indent=1), encoding="utf-8")
    return made


def load_demo_documents() -> IntakeBatch | None:
    """The demo documents, once: None when they are here already."""
    if IntakeBatch.objects.filter(kind=IntakeBatch.Kind.DEMO).exists():
        return None
    rows = intake.parse_jsonl(DOCUMENTS.read_bytes())
    return intake.add_documents(rows, kind=IntakeBatch.Kind.DEMO, by=None, name=DOCUMENTS.name)
