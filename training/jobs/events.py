"""`events.jsonl`: what a job tells its supervisor, one JSON object a line, append-only. No torch here."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

EVENTS_NAME = "events.jsonl"


class EventLog:
    """The writing side. `clock` is monotonic seconds."""

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = (run_dir / EVENTS_NAME).open("a", encoding="utf-8")
        self._clock = clock
        self._started: dict[str, tuple[float, int]] = {}

    def stage(self, stage: str) -> None:
        self._write({"kind": "stage", "stage": stage})

    def progress(self, stage: str, done: int, total: int) -> None:
        """`eta_s` follows from the pace since this process began the stage: a resumed run does not count old steps."""
        began, first = self._started.setdefault(stage, (self._clock(), done))
        pace = (self._clock() - began) / (done - first) if done > first else None
        eta_s = None if pace is None else round(pace * (total - done), 1)
        self._write({"kind": "progress", "stage": stage, "done": done, "total": total, "eta_s": eta_s})

    def metric(self, step: int, name: str, value: float) -> None:
        self._write({"kind": "metric", "step": step, "name": name, "value": round(value, 6)})

    def log(self, text: str) -> None:
        """A sentence for people. Never text of a row: say its id."""
        print(text, flush=True)
        self._write({"kind": "log", "text": text})

    def close(self) -> None:
        self._file.close()

    def _write(self, event: dict[str, Any]) -> None:
        line = json.dumps({"t": datetime.now(UTC).isoformat(timespec="milliseconds"), **event})
        self._file.write(line + "\n")
        self._file.flush()


def read_events(run_dir: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Events from byte `offset` on, and the offset to go on from. A line still being written waits for its end."""
    path = run_dir / EVENTS_NAME
    if not path.is_file():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        chunk = file.read()
    complete = chunk[: chunk.rfind(b"\n") + 1]
    return [event for line in complete.splitlines() if (event := _parse(line)) is not None], offset + len(complete)


def _parse(line: bytes) -> dict[str, Any] | None:
    # A job that was killed may leave half a line, and the next attempt appends to it.
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
