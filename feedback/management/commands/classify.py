"""`manage.py classify`: the classifier on one text or a file, without the database."""

from argparse import Namespace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from classifier import cli
from classifier.errors import ClassifierError


class Command(BaseCommand):
    help = 'Classify one text, or a JSONL file of {"id", "text"} rows.'
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        cli.add_arguments(parser)
        # `handle` gets the options without the parser, which knows how to refuse a wrong call.
        parser.set_defaults(parser=parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            code = cli.run(options["parser"], Namespace(**options))
        except ClassifierError as error:
            raise CommandError(str(error)) from error
        if code:
            raise SystemExit(code)
