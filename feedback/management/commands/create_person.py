"""`manage.py create_person NAME --role admin`: the first door into a fresh install. Prints a password made for it."""

from __future__ import annotations

import secrets
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.errors import InvalidInput
from feedback.models import Role
from feedback.services.people import create_person


class Command(BaseCommand):
    help = "Create a person with a role. The password is made up and printed once, or read from the standard input."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--role", required=True, choices=Role.values)
        parser.add_argument("--email", default="")
        parser.add_argument("--password-stdin", action="store_true", help="read the password from the standard input")

    def handle(self, *args: Any, **options: Any) -> None:
        is_given = options["password_stdin"]
        password = sys.stdin.readline().rstrip("\n") if is_given else secrets.token_urlsafe(12)
        try:
            create_person(options["username"], role=options["role"], password=password, email=options["email"])
        except InvalidInput as error:
            raise CommandError(error.detail) from None
        self.stdout.write(f"{options['username']} may log in as {options['role']}.")
        if not is_given:
            self.stdout.write(f"Password, shown this once: {password}")
