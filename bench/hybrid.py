"""What the cascade saves against asking the LLM every time, and what HTTP costs on top.

    python -m bench.hybrid [--release releases/starter-2] [--texts PATH] [--suite FILE] [--rows 256] [--threads 1]

`cascade_vs_weighted` is throughput against throughput, both policies on the same arms in one process, in turns of 32
texts. `--suite` adds both policies' risk figures on a functional suite, where the cascade may not be worse.
`http_overhead` is how much longer 32 clients with one text a request take than batches of 32 of the same texts in this
process, the median over turns; the server is started for it on loopback, with as many threads, and stopped. `asked`
says why the cascade asks the LLM: the share of texts for each reason, and for each reason that was the only one.
`--texts` is a folder or file of labelled rows, by default the bank, held-out rows first. The last line is one JSON
object.
"""

import argparse
import asyncio
import copy
import json
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.texts import read_texts
from classifier import api
from classifier.base_models import base_models_dir
from classifier.derived import derived_dir
from classifier.hybrid import Calibration, Policy, find_llm_reasons
from classifier.schema import Schema, load_schema
from tests.inference import TOKEN, InferenceProcess
from training.jobs.ablation import ALL_CASCADE, ALL_WEIGHTED, decide_by, print_progress
from training.jobs.arm_scores import Scored, score_texts
from training.jobs.suite import Case, read_suite, score_suite

ROOT = Path(__file__).resolve().parent.parent
BATCH = 32
CLIENTS = 32
HTTP_TURN = 2 * CLIENTS
"""Texts in this process, then through the server: short turns, so that other work on the machine meets both."""
POLICIES: tuple[Policy, Policy] = ("cascade", "weighted")


def with_policy(classifier: api.Classifier, policy: Policy) -> api.Classifier:
    """The same arms under another policy."""
    other = copy.copy(classifier)
    other.manifest = replace(classifier.manifest, policy=policy)
    return other


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), BATCH):
        yield texts[start : start + BATCH]


def measure_policies(classifier: api.Classifier, texts: Sequence[str]) -> dict[str, float]:
    seconds = dict.fromkeys(POLICIES, 0.0)
    deciders = {policy: with_policy(classifier, policy) for policy in POLICIES}
    for batch in batches(texts):
        for policy, decider in deciders.items():
            started = time.perf_counter()
            decider.decide(batch)
            seconds[policy] += time.perf_counter() - started
    return {
        "cascade_vs_weighted": round(seconds["weighted"] / seconds["cascade"], 2),
        "docs_per_s_b32": round(len(texts) / seconds["cascade"], 1),
        "docs_per_s_b32_weighted": round(len(texts) / seconds["weighted"], 1),
    }


def measure_single(classifier: api.Classifier, texts: Sequence[str]) -> dict[str, float]:
    latency_ms = []
    for text in texts:
        started = time.perf_counter()
        classifier.decide([text])
        latency_ms.append((time.perf_counter() - started) * 1000)
    p50, p99 = np.percentile(latency_ms, [50, 99])
    return {"p50_ms_b1": round(float(p50), 2), "p99_ms_b1": round(float(p99), 2)}


def count_llm_reasons(scored: Sequence[Scored], calibration: Calibration, schema: Schema) -> dict[str, Any]:
    """From stored scores, so that another calibration can be tried in no time. Shares of all texts."""
    found = [tuple(find_llm_reasons(item.arms.get("bert"), item.verdict, calibration, schema)) for item in scored]
    every = Counter(reason for reasons in found for reason in reasons)
    alone = Counter(reasons[0] for reasons in found if len(reasons) == 1)
    return {
        "share": round(sum(map(bool, found)) / len(found), 4),
        "reasons": {name: round(count / len(found), 4) for name, count in every.most_common()},
        "alone": {name: round(count / len(found), 4) for name, count in alone.most_common()},
    }


def score_bert_alone(classifier: api.Classifier, texts: Sequence[str]) -> list[Scored]:
    found = classifier.score_arm("bert", texts, [])
    return [
        Scored(classifier.apply_rules(text), {"bert": score} if score else {})
        for text, score in zip(texts, found, strict=True)
    ]


def measure_suite(classifier: api.Classifier, cases: Sequence[Case]) -> dict[str, Any]:
    """Both policies from one scoring of each arm."""
    scored = score_texts(classifier, [case.text for case in cases], report=print_progress)
    plain = replace(classifier.calibration, abstain=None)
    figures: dict[str, Any] = {}
    for policy, name in (("cascade", ALL_CASCADE), ("weighted", ALL_WEIGHTED)):
        found = score_suite(cases, [decide_by(name, item, plain).labels for item in scored])
        figures[policy] = {key: found[key]["hits"] for key in ("passed", "missed_risk", "false_alarm")}
    cascade, weighted = figures["cascade"], figures["weighted"]
    not_worse = all(cascade[key] <= weighted[key] for key in ("missed_risk", "false_alarm"))
    asked = count_llm_reasons(scored, plain, load_schema())
    return {"suite": figures | {"rows": len(cases), "asked": asked}, "suite_not_worse": not_worse}


async def ask(port: int, waiting: Iterator[str]) -> None:
    """One client on one connection, as bare as it gets: what it costs is taken for the server's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for text in waiting:
        body = json.dumps({"texts": [text]}).encode()
        headers = ["Host: bench", f"Authorization: Bearer {TOKEN}", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join(["POST /v1/decide HTTP/1.1", *headers, "", ""]).encode() + body)
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
        if " 200 " not in status:
            raise SystemExit(f"the server answered {status}")
        (size,) = (int(field.partition(":")[2]) for field in fields if field.startswith("content-length:"))
        await reader.readexactly(size)
    writer.close()
    await writer.wait_closed()


async def ask_all(port: int, texts: Sequence[str]) -> float:
    """Seconds until every client has its last answer."""
    waiting = iter(texts)
    started = time.perf_counter()
    await asyncio.gather(*(ask(port, waiting) for _ in range(CLIENTS)))
    return time.perf_counter() - started


def measure_http(args: argparse.Namespace, classifier: api.Classifier, texts: Sequence[str]) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="heed-bench-"))
    server = InferenceProcess(folder)
    server.point_to("r0001", args.release.resolve())
    settings = {"HEED_BASE_MODELS": str(args.base_models.resolve()), "HEED_DERIVED_DIR": str(derived_dir().resolve())}
    server.start(INFERENCE_THREADS=str(args.threads), INFERENCE_POLL_S="5", **settings)
    inside: list[float] = []
    outside: list[float] = []
    try:
        asyncio.run(ask_all(server.port, [f"warm up {number}" for number in range(CLIENTS)]))
        for turn in (texts[start : start + HTTP_TURN] for start in range(0, len(texts), HTTP_TURN)):
            started = time.perf_counter()
            for batch in batches(turn):
                classifier.decide(batch)
            inside.append(time.perf_counter() - started)
            outside.append(asyncio.run(ask_all(server.port, turn)))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    overhead = statistics.median(there / here for there, here in zip(outside, inside, strict=True)) - 1
    return {"http_overhead": round(overhead, 3), "docs_per_s_http": round(len(texts) / sum(outside), 1)}


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--release", type=Path, default=ROOT / "releases" / "starter-2")
    parser.add_argument("--base-models", type=Path, default=base_models_dir())
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--suite", type=Path)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    texts = list(dict.fromkeys(row.text for row in read_texts(args.texts, args.rows)))
    loaded = api.load(args.release, base_models=args.base_models)
    classifier = with_policy(loaded, "cascade")
    for policy in POLICIES:
        with_policy(classifier, policy).decide(texts[:4])
    figures: dict[str, Any] = {"bench": "hybrid", "release": args.release.name, "rows": len(texts)}
    figures |= measure_policies(classifier, texts)
    figures |= measure_single(classifier, texts)
    figures["asked"] = count_llm_reasons(score_bert_alone(classifier, texts), classifier.calibration, classifier.schema)
    figures |= measure_http(args, loaded, texts)
    if args.suite:
        figures |= measure_suite(classifier, read_suite(args.suite))
    print(json.dumps(figures | {"threads": args.threads}))


if __name__ == "__main__":
    main()
