import subprocess
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Bring database, static files, base models and the starter release up to date. Safe to repeat."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--demo", action="store_true", help="also load the demo documents and make the demo people")

    def handle(self, *args: Any, **options: Any) -> None:
        fetched = subprocess.run([sys.executable, "-m", "classifier.base_models"])
        if fetched.returncode:
            raise CommandError("the base models could not be had; the reason stands above")
        call_command("migrate", verbosity=0)
        call_command("collectstatic", verbosity=0, interactive=False)
        call_command("load_starter")
        if options["demo"]:
            call_command("load_demo")
