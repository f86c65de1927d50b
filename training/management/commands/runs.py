from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from training import api


class Command(BaseCommand):
    help = "List training runs, the newest first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--limit", type=int, default=20, help="so many (default: 20)")

    def handle(self, *args: Any, **options: Any) -> None:
        for run in api.list_runs()[: max(0, options["limit"])]:
            made = run.metrics.get("release") or ("not released" if run.is_ended else f"{run.progress:.0%}")
            self.stdout.write(
                f"{run.pk:>5}  {run.kind:<10} {run.state:<10} {run.stage:<24} {made:<12} "
                f"{run.snapshot.content_hash[:12]}  {run.created_at:%Y-%m-%d %H:%M}"
            )
