"""What things are called in MLflow: keys that find a run again, and names MLflow accepts. Pure."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from trainflow.identifiers import canonical_json, chain_dag_id, digest
from trainflow.tracking.deliveries import TrackedChain, TrackedRun

#: MLflow makes run ids itself; this tag is how a run is found again
RUN_KEY = "trainflow.run_key"
#: whether a run is a chain's parent run or that of one DagRun
KIND, CHAIN, RUN = "trainflow.kind", "chain", "run"
#: what was delivered to a run last, set after everything else: "<kind> <digest of the payload>"
DELIVERED = "trainflow.delivered"

MAX_NAME = 250
#: characters of the digest of a name that is longer
_SHORT = 8
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 5000  # what every MLflow backend takes; newer servers take 8000
_FORBIDDEN = re.compile(r"[^/\w.\- :]")
#: in the name of a logged model, which takes less than that of a registered one
_FORBIDDEN_IN_LOGGED_MODEL = re.compile(r"[/:.%\"']")


def chain_key(chain: TrackedChain) -> str:
    """The run key of a chain's parent run."""
    return _key("chain", [chain.store, chain.pipeline, chain.stage, chain.branch])


def model_name(chain: TrackedChain) -> str:
    """The registered model of a chain: named as its DAG is."""
    return chain_dag_id(chain.pipeline, chain.stage, chain.branch)


def logged_model_name(chain: TrackedChain, number: int) -> str:
    """The logged model of a checkpoint, as MLflow accepts it: `flight_delay-tuned-27`. Its tags say which it is: of two
    chains that differ in what is replaced alone it is the same."""
    return _FORBIDDEN_IN_LOGGED_MODEL.sub("-", f"{model_name(chain)}-{number}")


def run_key(run: TrackedRun) -> str:
    """The run key of a DagRun. The first start is not part of it: a cleared run goes on in the same MLflow run."""
    chain = run.chain
    return _key("run", [chain.store, chain.pipeline, chain.stage, chain.branch, run.dag_id, run.run_id])


def _key(sort: str, parts: list[str]) -> str:
    return f"{sort}-{digest(canonical_json(parts)).removeprefix('sha256:')[:32]}"


def safe_name(name: str) -> str:
    """`name` as MLflow accepts it for a param or a metric: odd characters become `_`, and what is longer than 250
    characters ends with a digest, so that two names that differ further on stay two."""
    safe = _FORBIDDEN.sub("_", name)
    if len(safe) > MAX_NAME:
        short = digest(name.encode()).removeprefix("sha256:")[:_SHORT]
        safe = f"{safe[: MAX_NAME - _SHORT - 1]}-{short}"
    if posixpath.normpath(safe) != safe or safe.startswith(("/", "..")) or safe == ".":
        safe = safe.replace("/", "_").replace("..", "_").strip(".") or "_"
    return safe


def shorten(value: str, limit: int) -> str:
    """`value` in at most `limit` characters; `…` says that something is missing."""
    return value if len(value) <= limit else value[: limit - 1] + "…"


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested params as MLflow's flat strings: `{"model": {"lr": 0.1}}` → `{"model.lr": "0.1"}`.

    Scalars are written as `mlflow.log_param` writes them, so that user code logging the same param is no conflict.
    """
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            text = value if isinstance(value, str) else _literal(value)
            flat[safe_name(f"{prefix}{name}")] = shorten(text, MAX_PARAM_VALUE)
    return flat


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970; MLflow takes no time before."""
    return max(0, round(moment.timestamp() * 1000))


def iso(moment: datetime) -> str:
    """`2013-01-31T00:00:00Z`: one spelling, so that tags can be searched and sorted as text."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
