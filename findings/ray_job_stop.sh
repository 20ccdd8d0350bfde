#!/bin/sh
# Ray 2.60.0, Jobs API. Stopping a job sends SIGTERM to every process that descends from its entrypoint, in whatever
# group or session it is (`psutil.Process(…).children(recursive=True)`): workers of a data loader, and the ranks of a
# training, are told at once, and a trainer that would save loses what it works with. After 3 s all get SIGKILL;
# RAY_JOB_STOP_WAIT_TIME_S in the job's own `env_vars` makes that longer.
# A submission id that is taken is answered with HTTP 500 and a traceback of a traceback, in which 400 stands.
#
# Needs Linux (a network namespace with nothing but `lo`). A raylet ends by itself when its agents take longer than 15 s
# to start, as on a busy machine: it is tried a few times.
#
# Seen:
#   submission id that is taken: 500, ValueError: Job with submission_id a already exists. Please use …
#   told: child parent
#   alive after 3 s: yes
set -eu
folder=$(mktemp -d /tmp/ray_XXXXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "ray[default]==2.60.0"
cat > "$folder/tells.py" <<'PYTHON'
import signal
import subprocess
import sys
import time

signal.signal(signal.SIGTERM, lambda *_: print("told", sys.argv[1], flush=True))
if sys.argv[1] == "parent":
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
print("ready", flush=True)
for _ in range(600):
    time.sleep(0.1)
PYTHON
cat > "$folder/ask.py" <<'PYTHON'
import json
import os
import sys
import time
import urllib.error
import urllib.request

folder = sys.argv[1]
log = f"{folder}/log"


def ask(method, path, body=None):
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:8265/api/jobs/{path}", content, method=method)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=70) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


job = {
    "entrypoint": f"python3 {folder}/tells.py parent > {log} 2>&1",
    "submission_id": "a",
    "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "20"}},
}
assert ask("POST", "", job)[0] == 200
status, text = ask("POST", "", job)
line = next(line for line in text.splitlines() if line.startswith("ValueError"))
print(f"submission id that is taken: {status}, {line[:75]} …")
while not os.path.exists(log) or open(log).read().count("ready") < 2:
    time.sleep(0.2)
ask("POST", "a/stop")
time.sleep(6)
told = sorted(line.split()[1] for line in open(log).read().splitlines() if line.startswith("told"))
alive = json.loads(ask("GET", "a")[1])["status"] == "RUNNING"
print(f"told: {' '.join(told)}")
print(f"alive after 3 s: {'yes' if alive else 'no'}")
as_seen = status == 500 and "already exists" in line and told == ["child", "parent"] and alive
sys.exit(0 if as_seen else 1)
PYTHON
export folder
unshare -rn --fork --kill-child sh -c '
ip link set lo up
export RAY_USAGE_STATS_ENABLED=0 RAY_agent_register_timeout_ms=120000
for turn in 1 2 3 4; do
    "$folder/venv/bin/ray" start --head --num-cpus=2 --dashboard-host=127.0.0.1 --temp-dir="$folder/$turn" \
        --object-store-memory=100000000 > "$folder/start" 2>&1 && started=1 && break
    "$folder/venv/bin/ray" stop --force > /dev/null 2>&1
done
[ -n "${started:-}" ] || { tail -n 3 "$folder/start"; exit 2; }
code=0
"$folder/venv/bin/python" "$folder/ask.py" "$folder" || code=$?
"$folder/venv/bin/ray" stop --force > /dev/null 2>&1
exit $code
'
