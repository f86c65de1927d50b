from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config.embedded import EmbeddedServerError
from config.env import env_int, env_str
from config.stack import Stack, StackError, StackOptions


class Command(BaseCommand):
    help = (
        "Start all of Heed on this machine; embedded PostgreSQL and Valkey where none is configured. Ctrl-C stops it."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--demo", action="store_true", help="also load the demo documents and make the demo people")
        parser.add_argument("--host", default=env_str("HOST", "127.0.0.1"))
        parser.add_argument("--port", type=int, default=env_int("PORT", 8000, low=1, high=65_535))

    def handle(self, *args: Any, **options: Any) -> None:
        stack = Stack(StackOptions(Path(settings.VAR_DIR), options["host"], options["port"], options["demo"]))
        try:
            code = stack.run()
        except (StackError, EmbeddedServerError) as error:
            raise CommandError(str(error)) from None
        if code:
            raise CommandError("a process failed; its lines stand above", returncode=code)
