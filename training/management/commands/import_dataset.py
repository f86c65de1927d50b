from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from training import api
from training.corpus.datasets_folder import import_folder
from training.snapshots import register


class Command(BaseCommand):
    help = (
        "Make a snapshot of a folder of Hugging Face datasets: manage.py import_dataset DIR. It holds a DatasetDict of "
        "train, val and test with the columns text, emotion, sentiment, stress, risk; those that are unknown are null."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="what save_to_disk or export_dataset wrote")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            frozen = import_folder(options["folder"], Path(settings.SNAPSHOTS_DIR))
        except (api.RowError, OSError) as error:
            raise CommandError(str(error)) from error
        snapshot = register(frozen, by_id=None)
        self.stdout.write(f"snapshot {snapshot.pk} ({snapshot.rows} rows)")
