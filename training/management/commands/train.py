import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from training import api
from training.jobs.config import OPTIONS
from training.supervisor import supervise

FOLLOW_S = 2.0


class Command(BaseCommand):
    help = (
        "Launch a training run: manage.py train bert --option epochs=4 --option learning_rate=5e-4. "
        "A worker of the queue `training` does the work; with --here this process does it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kind", choices=list(OPTIONS))
        parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="see --list-options")
        parser.add_argument("--list-options", action="store_true", help="print the options of this kind and stop")
        parser.add_argument("--snapshot", type=int, help="id of a snapshot (default: the newest)")
        parser.add_argument("--no-publish", action="store_true", help="make and judge the bundle, do not serve it")
        parser.add_argument("--here", action="store_true", help="do the work in this process")
        parser.add_argument("--detach", action="store_true", help="queue the run and stop")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["list_options"]:
            self._print_options(options["kind"])
            return
        run = self._start(options)
        self.stdout.write(f"run {run.pk} queued on snapshot {run.snapshot_id} ({run.snapshot.rows} rows)")
        if options["here"]:
            supervise(run.pk)
        if not options["detach"]:
            self._follow(run.pk)

    def _print_options(self, kind: str) -> None:
        for spec in api.run_options(kind):
            self.stdout.write(f"{spec.name}={spec.default!s:<10} {spec.help}")

    def _start(self, options: dict[str, Any]) -> api.TrainingRun:
        given = dict(pair.partition("=")[::2] for pair in options["option"])
        snapshots = api.list_snapshots()
        if options["snapshot"]:
            snapshots = snapshots.filter(pk=options["snapshot"])
        # With no snapshot yet: the bank alone. Feedback is frozen into one on the training page.
        snapshot = snapshots.first() or (None if options["snapshot"] else api.freeze_snapshot([], by_id=None))
        if snapshot is None:
            raise CommandError(f"there is no snapshot {options['snapshot']}")
        try:
            return api.start_run(options["kind"], snapshot=snapshot, options=given, publishes=not options["no_publish"])
        except (api.TrainingError, api.ConfigError, api.RowError) as error:
            raise CommandError(str(error)) from error

    def _follow(self, run_id: int) -> None:
        shown = ""
        while True:
            run = api.get_run(run_id)
            eta = "" if run.eta_s is None else f", {run.eta_s:.0f} s left"
            line = f"{run.state} {run.stage} {run.progress:.0%}{eta}"
            if line != shown:
                self.stdout.write(line)
                shown = line
            if run.is_ended:
                break
            time.sleep(FOLLOW_S)
        for gate in run.metrics.get("gates", []):
            self.stdout.write(
                f"gate {gate['name']}: {gate['value']} (bar {gate['bar']}) {'ok' if gate['passed'] else 'FAILED'}"
            )
        if run.error:
            raise CommandError(f"{run.error}\n{run.log_tail}" if run.state == run.State.FAILED else run.error)
        self.stdout.write(f"release {run.metrics['release']} published" if "release" in run.metrics else run.stage)
