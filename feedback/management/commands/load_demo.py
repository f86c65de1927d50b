from typing import Any

from django.core.management.base import BaseCommand

from feedback.services.demo import load_demo_documents, make_demo_people


class Command(BaseCommand):
    help = "Load the demo documents and make one annotator, one moderator and one admin. Safe to repeat."

    def handle(self, *args: Any, **options: Any) -> None:
        people = make_demo_people()
        if people:
            self.stdout.write(f"made {len(people)} demo people")
        batch = load_demo_documents()
        if batch is not None and batch.accepted:
            self.stdout.write(f"loaded {batch.accepted} demo documents")
