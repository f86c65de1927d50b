from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from training import api


class Command(BaseCommand):
    help = "Print what two or more runs were made of and what came of them, side by side; only what differs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("runs", type=int, nargs="+", metavar="RUN")
        parser.add_argument("--all", action="store_true", help="also what is the same")

    def handle(self, *args: Any, **options: Any) -> None:
        found = {run.pk: run for run in api.list_runs().filter(pk__in=options["runs"])}
        missing = [str(pk) for pk in options["runs"] if pk not in found]
        if missing or len(found) < 2:
            raise CommandError(f"there is no run {', '.join(missing)}" if missing else "name two runs or more")
        runs = [found[pk] for pk in dict.fromkeys(options["runs"])]
        self._print("run", [f"{run.pk} {run.kind}" for run in runs])
        for title, lines in api.compare_runs(runs).items():
            shown = [line for line in lines if options["all"] or line.differs]
            self.stdout.write(f"\n{title}{'' if shown else ': the same'}")
            for line in shown:
                self._print(line.name, line.values)

    def _print(self, name: str, values: Any) -> None:
        cells = (
            f"{value:.5g}" if isinstance(value, float) else "-" if value is None else str(value) for value in values
        )
        self.stdout.write(f"{name:<40}" + "".join(f" {cell:>18}" for cell in cells))
