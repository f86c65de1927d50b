"""Prometheus metrics of the inference server. Labels never hold text."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("heed_decide_requests_total", "Requests for decisions by outcome", ["outcome"])
TEXTS = Counter("heed_decide_texts_total", "Texts decided")
UNSCORED = Counter("heed_unscored_texts_total", "Texts answered without a score", ["reason"])
CACHE_HITS = Counter("heed_cache_hits_total", "Texts answered from the cache of the serving bundle")
BATCH_TEXTS = Histogram("heed_batch_texts", "Texts in one micro-batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
LATENCY = Histogram(
    "heed_decide_seconds",
    "Time from request to answer",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
SWAPS = Counter("heed_swaps_total", "Releases that took over serving")
SWAP_SECONDS = Gauge("heed_swap_seconds", "Duration of the last swap, load to pointer move")
RELEASE = Gauge("heed_release_info", "1 for the release that serves", ["release"])


def record_swap(release: str, seconds: float) -> None:
    RELEASE.clear()
    RELEASE.labels(release).set(1)
    SWAPS.inc()
    SWAP_SECONDS.set(seconds)
