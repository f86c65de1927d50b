"""`manage.py verify_audit`: recomputes the audit chain and names the first event that was changed, moved or removed."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.models import AuditEvent
from feedback.services.audit import head_hash, verify_chain


class Command(BaseCommand):
    help = "Verify the audit chain. Keep the printed head elsewhere: --head then proves that its end was not cut off."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--head", help="a head printed earlier, which the chain must still contain")

    def handle(self, *args: Any, **options: Any) -> None:
        broken = verify_chain()
        if broken is not None:
            raise CommandError(f"audit event {broken.event_id}: {broken.reason}")
        if options["head"] and not AuditEvent.objects.filter(hash=options["head"]).exists():
            raise CommandError("the chain no longer contains the given head: events were cut off its end")
        self.stdout.write(f"{AuditEvent.objects.count()} audit events, unbroken. Head: {head_hash()}")
