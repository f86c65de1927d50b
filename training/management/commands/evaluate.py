from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from training import api
from training.evaluation import Files


class Command(BaseCommand):
    help = (
        "Measure a release on labelled rows: manage.py evaluate r0002 --rows test.jsonl --suite suite.jsonl. "
        "The report stands on the release's page “Ablation”, in place of the one before."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("release", help="name of a release")
        parser.add_argument("--rows", type=Path, nargs="+", required=True, help="rows that it was not trained on")
        parser.add_argument("--suite", type=Path, help="functional suite")
        parser.add_argument("--train", type=Path, help="its training rows, for the bag of words")

    def handle(self, *args: Any, **options: Any) -> None:
        release = api.list_releases().filter(name=options["release"]).first()
        if release is None:
            raise CommandError(f"there is no release {options['release']}")
        try:
            report = api.evaluate_release(release, Files(options["rows"], options["suite"], options["train"]))
        except (api.TrainingError, api.ConfigError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write("\n".join(report["remarks"]))
        self.stdout.write(f"the report is on the page of release {release.name}")
