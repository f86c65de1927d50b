from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from training import api
from training.corpus.datasets_folder import export_folder


class Command(BaseCommand):
    help = "Write a snapshot as a folder of Hugging Face datasets: manage.py export_dataset --snapshot 3 --out DIR"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--snapshot", default="", help="id or the beginning of its hash (default: the newest)")
        parser.add_argument("--out", type=Path, required=True, help="a new folder, for datasets.load_from_disk")

    def handle(self, *args: Any, **options: Any) -> None:
        snapshot = self._find(options["snapshot"])
        if snapshot is None:
            raise CommandError(f"there is no snapshot {options['snapshot']}".rstrip())
        try:
            counts = export_folder(Path(snapshot.uri), options["out"])
        except (api.RowError, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(", ".join(f"{name} {count}" for name, count in counts.items()))

    def _find(self, wanted: str) -> api.DatasetSnapshot | None:
        by_id = api.list_snapshots().filter(pk=int(wanted)).first() if wanted.isdecimal() else None
        return by_id or api.find_snapshot(wanted)
