"""What a swap costs the clients: latency while releases are swapped without pause, against the same load with none.

    python -m bench.swap [--bundle releases/starter-2] [--seconds 20] [--clients 4]

Both halves run on the same server process, one after the other. Every client sends one fresh short text a request, so
nothing is answered from the cache. The last line is one JSON object.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from classifier.client import InferenceUnavailable
from tests.inference import InferenceProcess

ROOT = Path(__file__).resolve().parent.parent


class Load:
    """Clients that ask without pause, and what they saw."""

    def __init__(self, server: InferenceProcess, clients: int) -> None:
        self.server = server
        self.clients = clients
        self.latency_ms: list[float] = []
        self.failures = 0
        self.mixed = 0
        self._done = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in threads:
            thread.start()
        yield
        self._done.set()
        for thread in threads:
            thread.join()

    def _ask(self) -> None:
        client = self.server.client()
        while not self._done.is_set():
            texts = [f"the bus was late and I am tired {uuid.uuid4().hex[:6]}" for _ in range(2)]
            started = time.perf_counter()
            try:
                releases = {decision.release for decision in client.decide(texts)}
            except InferenceUnavailable:
                self.failures += 1
                continue
            self.mixed += len(releases) != 1
            self.latency_ms.append((time.perf_counter() - started) * 1000)

    def figures(self, seconds: float) -> dict[str, float]:
        cuts = statistics.quantiles(self.latency_ms, n=100)
        return {
            "requests_per_s": round(len(self.latency_ms) / seconds, 1),
            "p50_ms": round(cuts[49], 1),
            "p95_ms": round(cuts[94], 1),
            "max_ms": round(max(self.latency_ms), 1),
        }


def copy_bundles(bundle: Path, folder: Path) -> list[Path]:
    """Three bundles that differ in name alone: the server keeps one back, so a third is never at hand and is loaded."""
    copies = []
    for place in range(3):
        copy = folder / f"copy-{place}"
        shutil.copytree(bundle, copy)
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
        (copy / "manifest.json").write_text(json.dumps({**manifest, "name": copy.name}), encoding="utf-8")
        copies.append(copy)
    return copies


def swap_until(server: InferenceProcess, bundles: list[Path], ends_at: float) -> int:
    """Load and swap one bundle after another. Returns how often."""
    client, swaps = server.client(600), 0
    serves = server.serves()
    while time.perf_counter() < ends_at:
        fresh, bundle = f"r{swaps + 2:04}", bundles[(swaps + 1) % len(bundles)]
        server.point_to(fresh, bundle)
        client.swap(release=fresh, bundle=str(bundle), expected=serves)
        serves, swaps = fresh, swaps + 1
    return swaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "releases" / "starter-2")
    parser.add_argument("--base-models", type=Path, default=ROOT / "var" / "base_models")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="heed-bench-"))
    server = InferenceProcess(folder)
    bundles = copy_bundles(options.bundle.resolve(), folder / "copies")
    server.point_to("r0001", bundles[0])
    server.start(HEED_BASE_MODELS=str(options.base_models.resolve()), INFERENCE_THREADS="2", INFERENCE_POLL_S="1")
    try:
        steady = Load(server, options.clients)
        with steady.running():
            threading.Event().wait(options.seconds)
        swapped = Load(server, options.clients)
        started = time.perf_counter()
        with swapped.running():
            swaps = swap_until(server, bundles, started + options.seconds)
        seconds = time.perf_counter() - started
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    before, during = steady.figures(options.seconds), swapped.figures(seconds)
    print(
        json.dumps(
            {
                "bench": "swap",
                "steady": before,
                "during_swaps": during,
                "swaps": swaps,
                "failed": steady.failures + swapped.failures,
                "mixed": steady.mixed + swapped.mixed,
                "p95_during_vs_steady": round(during["p95_ms"] / before["p95_ms"], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
