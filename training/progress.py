"""A run's events, summed up as columns of its row."""

import math
from pathlib import Path
from typing import Any

from training.jobs.events import read_events

SHARES = {
    "train": (0.0, 0.8),
    "calibrate BERT": (0.8, 0.84),
    "calibrate LLM": (0.84, 0.9),
    "evaluate candidate": (0.9, 0.93),
    "evaluate BERT alone": (0.93, 0.94),
    "evaluate LLM alone": (0.94, 0.96),
    "evaluate baseline": (0.96, 0.99),
}
"""Stage -> where it begins and ends in the progress of the whole run."""
MAX_POINTS = 1_000
"""Of one curve; a longer one loses every second point."""


class Progress:
    """Reads `events.jsonl` from its beginning, so that a resumed attempt shows the whole curve."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._offset = 0
        self._stage = "starting"
        self._share = 0.0
        self._eta_s: float | None = None
        self._points: dict[str, dict[int, float]] = {}
        self.is_new = False
        """Whether the last `read` found anything."""

    def read(self) -> None:
        events, self._offset = read_events(self._run_dir, self._offset)
        self.is_new = bool(events)
        for event in events:
            self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.get("kind")
        if kind == "stage":
            self._stage, self._eta_s = str(event["stage"])[:32], None
        elif kind == "progress" and event["total"]:
            begin, end = SHARES.get(event["stage"], (self._share, self._share))
            self._share = begin + (end - begin) * min(1.0, event["done"] / event["total"])
            self._stage, self._eta_s = str(event["stage"])[:32], event["eta_s"]
        elif kind == "metric" and math.isfinite(event["value"]):
            # Steps after the last checkpoint are done again by a resumed job: the newer value counts.
            curve = self._points.setdefault(str(event["name"]), {})
            curve[int(event["step"])] = float(event["value"])
            if len(curve) > MAX_POINTS:
                self._points[str(event["name"])] = dict(sorted(curve.items())[::2])

    @property
    def metrics(self) -> dict[str, Any]:
        """Name -> value at the last step."""
        return {name: curve[max(curve)] for name, curve in self._points.items()}

    def as_fields(self) -> dict[str, Any]:
        series = [
            {"step": step, "name": name, "value": value}
            for name, curve in self._points.items()
            for step, value in sorted(curve.items())
        ]
        return {
            "stage": self._stage,
            "progress": round(self._share, 4),
            "eta_s": self._eta_s,
            "metrics": self.metrics,
            "series": series,
        }
