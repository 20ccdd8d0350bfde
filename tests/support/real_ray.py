"""A real Ray cluster of one node, and a command beside it that finds its dashboard in RAY_DASHBOARD:

    pip install 'ray[default]'
    python -m tests.support.real_ray pytest -n 0 tests/integration/test_ray_jobs_api.py
    python -m tests.support.real_ray pytest -n 0 tests/integration/test_executors_ray.py

Ray replaces 127.0.0.1 by the address of the machine and takes ports from 10002 to 19999 for its workers: so all of it
runs in a network namespace that has nothing but `lo` (Linux). Starting takes 20 s, and fails on a machine that is busy,
when an agent is not there within 15 s: it is tried a few times. RAY names the executable, default: `ray`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

_TRIES = 4
_SCRIPT = """
ip link set lo up
export RAY_USAGE_STATS_ENABLED=0 RAY_agent_register_timeout_ms=120000 RAY_AUTH_MODE=disabled
for turn in $(seq {tries}); do
    {ray} start --head --num-cpus=4 --dashboard-host=127.0.0.1 --dashboard-port=8265 \
        --object-store-memory=100000000 --temp-dir={folder}/$turn >{folder}/start.log 2>&1 && started=1 && break
    {ray} stop --force >/dev/null 2>&1
done
[ -n "$started" ] || {{ tail -n 3 {folder}/start.log; exit 1; }}
trap '{ray} stop --force >/dev/null 2>&1' EXIT
RAY_DASHBOARD=http://127.0.0.1:8265 "$@"
"""


def main(command: list[str]) -> int:
    """Run a command beside a cluster; its exit code."""
    ray = os.environ.get("RAY") or shutil.which("ray")
    if ray is None:
        sys.exit("there is no ray here: pip install 'ray[default]', or name it in RAY")
    folder = tempfile.mkdtemp(prefix="ray_", dir="/tmp")  # paths of its sockets are short
    script = _SCRIPT.format(ray=ray, folder=folder, tries=_TRIES)
    try:
        return subprocess.call(["unshare", "-rn", "--fork", "--kill-child", "bash", "-c", script, "real_ray", *command])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
