"""How long a start takes: the first on an empty folder against the second on the same one.

    python -m bench.start

The virtual environment and the base models are there already. The last line is one JSON object: seconds until the
pages and the classifier answer.
"""

import json
import shutil
import tempfile
import time
from pathlib import Path

from tests.stack import StackProcess

BASE_MODELS = Path(__file__).resolve().parent.parent / "var" / "base_models"


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="heed start "))
    stack = StackProcess(folder / "var", BASE_MODELS)
    starts, stops = [], []
    try:
        for _ in range(2):
            starts.append(round(stack.start(timeout_s=600), 1))
            began = time.perf_counter()
            stack.interrupt()
            stops.append(round(time.perf_counter() - began, 1))
    finally:
        stack.end()
        shutil.rmtree(folder, ignore_errors=True)
    first, second = starts
    figures = {"first_s": first, "second_s": second, "second_vs_first": round(second / first, 2), "stop_s": max(stops)}
    print(json.dumps({"bench": "start", **figures}))


if __name__ == "__main__":
    main()
