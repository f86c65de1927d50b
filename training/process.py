"""A job as a process group of its own, with its output in a log file."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from django.conf import settings

from training.jobs.runtime import SUPERVISOR_PID

LOG_NAME = "job.log"
TAIL_LINES = 40
TAIL_BYTES = 16_384
SECRETS = ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "INFERENCE_TOKEN")
"""A job works on files alone; what it does not know it cannot give away."""


class JobProcess:
    """Build it by `start`."""

    def __init__(self, process: "subprocess.Popen[bytes]", run_dir: Path) -> None:
        self._process = process
        self._run_dir = run_dir

    @classmethod
    def start(cls, module: str, run_dir: Path, arguments: Sequence[str] | None = None) -> Self:
        """The job dies with this process, even by kill -9: see training.jobs.runtime.bind_to_supervisor.

        Its log goes to `run_dir`, which is also what it is told to work in where no `arguments` are given.
        """
        told = ["--run-dir", str(run_dir)] if arguments is None else arguments
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        environment |= {
            SUPERVISOR_PID: str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
            "VAR_DIR": str(settings.VAR_DIR),
            "HEED_BASE_MODELS": str(settings.BASE_MODELS_DIR),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
        }
        with (run_dir / LOG_NAME).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore::FutureWarning", "-m", module, *told],
                cwd=settings.BASE_DIR,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own session: a signal reaches the whole group, and Ctrl-C at the worker's terminal does not.
                start_new_session=True,
            )
        return cls(process, run_dir)

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None while it runs."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill what is left of the group, and wait for the job itself."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, signum: signal.Signals) -> None:
        # The group may be gone; its leader cannot have been reaped by anyone else, so the number is still its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signum)

    def explain(self) -> str:
        """Why it failed, in a sentence: its own, where it gave one."""
        errors = [line for line in self.read_tail(self._run_dir).splitlines() if line.startswith("error: ")]
        if errors:
            return errors[-1].removeprefix("error: ")
        if self.returncode == -signal.SIGKILL:
            return "the job was killed, most likely for want of memory: lower batch_size or max_tokens"
        if self.returncode is not None and self.returncode < 0:
            return f"the job was ended by signal {signal.Signals(-self.returncode).name}"
        return f"the job ended with exit code {self.returncode}: its last lines are below"

    @staticmethod
    def read_tail(run_dir: Path) -> str:
        """The last lines of the log; empty before there are any."""
        path = run_dir / LOG_NAME
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            # A NUL would be refused by PostgreSQL.
            text = file.read().decode("utf-8", "replace").replace("\0", "")
        return "\n".join(text.splitlines()[-TAIL_LINES:])
