"""What every job does around its work: stop on TERM, die with its supervisor, be alone in its run dir, fail in words.

Exit codes: 0 complete, 2 unusable configuration or data, 143 stopped after a checkpoint, 75 the supervisor is gone.
"""

import argparse
import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from classifier.errors import ClassifierError
from training.corpus.rows import Row, RowError, read_rows
from training.jobs.config import ConfigError, JobConfig, write_json
from training.jobs.events import EventLog

EXIT_CONFIG = 2
EXIT_ORPHAN = 75
EXIT_STOPPED = 143
SUPERVISOR_PID = "HEED_SUPERVISOR_PID"
PR_SET_PDEATHSIG = 1
LOCK_TIMEOUT_S = 60.0
"""How long a resumed attempt waits for the one before it to be gone from the run dir."""


class Stopped(Exception):
    """The job was asked to stop and has written a checkpoint."""


class StopFlag:
    """Set by SIGTERM; the loop looks at it after each step."""

    def __init__(self) -> None:
        self.is_set = False

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, signum: int, frame: FrameType | None) -> None:
        self.is_set = True


def bind_to_supervisor() -> None:
    """Die when the supervisor dies, even by kill -9, so that a resumed attempt never runs beside an orphan.

    Without a supervisor (`HEED_SUPERVISOR_PID` unset) nothing happens. Linux kills at once by PR_SET_PDEATHSIG;
    a watchdog does it within a second elsewhere, and where the supervisor died before the request was made.
    """
    expected = os.environ.get(SUPERVISOR_PID)
    if expected is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(expected):
        os._exit(EXIT_ORPHAN)
    threading.Thread(target=_watch_parent, args=(int(expected),), name="watch-parent", daemon=True).start()


def _watch_parent(expected: int) -> None:
    pause = threading.Event()
    while os.getppid() == expected:
        pause.wait(1.0)
    os._exit(EXIT_ORPHAN)


class Job:
    """A run dir with its configuration, events and stop flag."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.config = JobConfig.read(run_dir)
        self.events = EventLog(run_dir)
        self.stop = StopFlag()

    def rows(self, split: str) -> list[Row]:
        """Raises ConfigError where the split is missing or empty."""
        path = self.run_dir / "data" / f"{split}.jsonl"
        if not path.is_file():
            raise ConfigError(f"{path} is missing")
        rows = read_rows(path)
        if not rows:
            raise ConfigError(f"{path} has no rows: the snapshot needs at least one in every split")
        return rows

    @property
    def is_complete(self) -> bool:
        return (self.run_dir / "manifest.json").is_file()

    def complete(self, manifest: dict[str, object]) -> None:
        """The last write of a job: the manifest's existence means that everything else is there."""
        made = {"format": 1, "kind": self.config.kind, "peak_mb": measure_peak_mb(), **manifest}
        write_json(self.run_dir / "manifest.json", made)


def measure_peak_mb() -> float:
    """The most memory that this process has held: of the card where one is in use, else of the machine."""
    torch = sys.modules.get("torch")  # not imported here: a job that has no torch uses no card
    if torch is not None and torch.cuda.is_available():
        held = [int(torch.cuda.max_memory_reserved(card)) for card in range(torch.cuda.device_count())]
        return round(max(held) / 1e6, 1)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def run_job(main: Callable[[Job], None], description: str, argv: list[str] | None = None) -> int:
    """The command line of a job. Returns its exit code; an unforeseen exception goes through with its traceback."""
    bind_to_supervisor()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder with config.json and data/")
    run_dir: Path = parser.parse_args(argv).run_dir
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        job = Job(run_dir)
        job.stop.install()
        with FileLock(run_dir / ".lock", timeout=LOCK_TIMEOUT_S):
            main(job)
    except Stopped:
        print("stopped after a checkpoint; the same command goes on from it", flush=True)
        return EXIT_STOPPED
    except Timeout:
        print(f"error: another job works in {run_dir}", file=sys.stderr)
        return EXIT_CONFIG
    except (ConfigError, RowError, ClassifierError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIG
    return 0


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def tidy_adapter(folder: Path, base: Path) -> None:
    """Take this machine's paths out of an adapter that peft saved: a bundle travels, and names its base itself."""
    path = folder / "adapter_config.json"
    if path.is_file():
        write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": base.name})
    (folder / "README.md").unlink(missing_ok=True)
