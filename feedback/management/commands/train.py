import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback import ml
from feedback.services import retraining

FOLLOW_S = 2.0
NEW = "new"


class Command(BaseCommand):
    help = (
        "Queue a training run: manage.py train bert --option epochs=4 --snapshot new --wait. "
        "A worker of the queue `training` does the work; with --here this process does it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        kinds = ml.list_kinds()
        parser.add_argument("kind", choices=list(kinds), help="; ".join(f"{n}: {k.title}" for n, k in kinds.items()))
        parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="see --list-options")
        parser.add_argument("--list-options", action="store_true", help="print the options of this kind and stop")
        parser.add_argument(
            "--snapshot",
            default="",
            metavar="HASH|new",
            help="the beginning of a snapshot's hash, or `new`: what people have said by now (default: the newest one)",
        )
        parser.add_argument("--base", default="", metavar="NAME", help="base model (default: the serving arm's)")
        parser.add_argument("--no-publish", action="store_true", help="make and judge the bundle, do not serve it")
        parser.add_argument("--dry-run", action="store_true", help="say what it would take and lack, queue nothing")
        parser.add_argument(
            "--wait", action="store_true", help="follow the run to its end; exit code 1 where it failed"
        )
        parser.add_argument("--here", action="store_true", help="do the work in this process, which waits for it too")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._handle(options)
        except (ml.TrainingError, ml.ConfigError, ml.RowError) as error:
            raise CommandError(str(error)) from error

    def _handle(self, options: dict[str, Any]) -> None:
        if options["list_options"]:
            self._print_options(options["kind"])
            return
        launch = read_launch(options)
        if options["dry_run"]:
            self._print_forecast(retraining.forecast(launch))
            return
        run = retraining.launch_run(launch, by=None)
        snapshot = run.snapshot
        self.stdout.write(f"run {run.pk} queued on snapshot {snapshot.content_hash[:12]} ({snapshot.rows} rows)")
        if options["here"]:
            ml.work_here(run.pk)
        if options["here"] or options["wait"]:
            self._follow(run.pk)

    def _print_options(self, kind: str) -> None:
        for spec in ml.run_options(kind):
            choices = f" ({', '.join(choice or 'empty' for choice in spec.choices)})" if spec.choices else ""
            self.stdout.write(f"{spec.name}={spec.default!s:<10} {spec.help}{choices}")

    def _print_forecast(self, forecast: ml.Forecast) -> None:
        estimate = forecast.estimate
        basis = f"pace of run {estimate.measured_on}" if estimate.measured_on else "assumed for two CPU cores"
        self.stdout.write(
            f"{forecast.rows} rows; about {estimate.seconds / 60:.1f} min ({basis}), {estimate.memory_mb:.0f} MB of "
            f"memory, {estimate.disk_mb:.0f} MB of disk"
        )
        for lack in forecast.lacks:
            self.stdout.write(f"{'cannot run' if lack.is_fatal else 'note'}: {lack.text}")

    def _follow(self, run_id: int) -> None:
        shown = ""
        while True:
            run = ml.get_run(run_id)
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


def read_launch(options: dict[str, Any]) -> retraining.Launch:
    """Raises CommandError naming what is odd."""
    return retraining.Launch(
        options["kind"],
        options=dict(read_pair(pair) for pair in options["option"]),
        publishes=not options["no_publish"],
        snapshot=choose_snapshot(options["snapshot"]),
        base=options["base"],
    )


def read_pair(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals:
        raise CommandError(f"--option {pair}: expected NAME=VALUE")
    return name.strip(), value.strip()


def choose_snapshot(wanted: str) -> ml.DatasetSnapshot | None:
    """None where a new one is to be frozen: on demand, or because there is none yet."""
    if wanted == NEW:
        return None
    found = ml.find_snapshot(wanted)
    if found is None and wanted:
        raise CommandError(f"there is no snapshot {wanted}: give the beginning of a hash, or `{NEW}`")
    return found
