"""Real threads with real transactions: each has a connection of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from django.db import connections

Result = TypeVar("Result")


def run_together(*works: Callable[[], Result]) -> list[Result | Exception]:
    """Start all at the same instant; what each returned or raised, in order."""
    start = Barrier(len(works))

    def run(work: Callable[[], Result]) -> Result | Exception:
        try:
            start.wait(timeout=30)
            return work()
        except Exception as error:  # noqa: BLE001 - handed to the test, which looks at it
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))
