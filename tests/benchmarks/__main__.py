"""`python -m tests.benchmarks [NAME …]`: print the figures."""

from __future__ import annotations

import sys
from importlib import import_module

NAMES = (
    *(
        "help",
        "status",
        "cold_start",
        "transition",
        "remote_transition",
        "fan_out",
        "retrigger",
        "idle",
        "api_server",
        "waits",
        "pages",
    ),
    "rest",
    "load",
    "airflow_peer",
    "celery_redis",
    "celery_airflow",
    "store_requests",
    "databases",
    "two_schedulers",
)


def main(names: list[str]) -> None:
    """Run those named, or all."""
    for name in names or NAMES:
        import_module(f"tests.benchmarks.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
