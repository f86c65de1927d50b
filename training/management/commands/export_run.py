import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from training import api


class Command(BaseCommand):
    help = "Write everything that is kept of a run as JSON: options, data hash, code version, metrics, curves, gates."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int)
        parser.add_argument("--out", type=Path, help="file (default: standard output)")

    def handle(self, *args: Any, **options: Any) -> None:
        run = api.list_runs().filter(pk=options["run"]).first()
        if run is None:
            raise CommandError(f"there is no run {options['run']}")
        text = json.dumps(api.describe_run(run), indent=2, sort_keys=True)
        if options["out"] is None:
            self.stdout.write(text)
            return
        try:
            options["out"].write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{options['out']} cannot be written: {error.strerror}") from error
