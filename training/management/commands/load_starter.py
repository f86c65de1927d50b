from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from classifier.errors import ClassifierError
from training.api import ensure_starter_release


class Command(BaseCommand):
    help = "Make the first release from a bundle on disk. Does nothing where there is a release already."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("bundle", nargs="?", type=Path, help="default: the shipped starter bundle")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            release = ensure_starter_release(options["bundle"])
        except ClassifierError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"release {release.name} serves")
