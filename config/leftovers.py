"""Processes that outlived the one that started them, known by pid and start time: a pid alone may be reused by now."""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

# The clock behind create_time may be adjusted by this much between two readings.
SAME_START_S = 2.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A process as it was when we started it."""

    pid: int
    started_at: float

    @classmethod
    def of(cls, pid: int) -> "Mark":
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process, or None when it has ended (a zombie has ended) or the pid belongs to another one."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started_at) < SAME_START_S
        except psutil.NoSuchProcess:
            return None
        return process if is_same and is_alive(process) else None


def is_alive(process: psutil.Process | None) -> bool:
    """A zombie has ended."""
    try:
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def write_marks(path: Path, marks: dict[str, Mark]) -> None:
    """Replace the file as a whole: a reader never sees half of it."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps({name: asdict(mark) for name, mark in marks.items()}), encoding="utf-8")
    os.replace(draft, path)


def read_marks(path: Path) -> dict[str, Mark]:
    try:
        return {name: Mark(**raw) for name, raw in json.loads(path.read_text(encoding="utf-8")).items()}
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def end_tree(process: psutil.Process, grace_s: float = 15.0) -> None:
    """TERM to a process and all below it, KILL to what is left after the grace."""
    _end([process, *_below(process)], grace_s)


def end_supervised(supervisor: psutil.Process, grace_s: float = 15.0) -> None:
    """End a supervisor and what it runs. It goes first and at once: it would start its command again."""
    commands = _below(supervisor)
    _signal(supervisor, "kill")
    _end(commands, grace_s)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _end(processes: list[psutil.Process], grace_s: float) -> None:
    for process in processes:
        _signal(process, "terminate")
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        _signal(process, "kill")
    psutil.wait_procs(alive, timeout=5)


def _signal(process: psutil.Process, verb: str) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        getattr(process, verb)()
