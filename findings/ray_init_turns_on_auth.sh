#!/bin/sh
# Ray 2.60.0. `ray.init()` without an address starts a cluster of its own with token authentication, and writes a token
# to ~/.ray/auth_token. From then on `ray start --head` of the same user finds that file, and turns authentication on as
# well, while RAY_AUTH_MODE is not set: its dashboard answers 401 where no token is shown, where it answered before.
# RAY_AUTH_MODE=disabled for `ray start` keeps it off; the content of the file as a bearer token is accepted.
#
# Needs Linux (a network namespace with nothing but `lo`). A raylet ends by itself when its agents take longer than 15 s
# to start, as on a busy machine: it is tried a few times.
#
# Seen:
#   before: 200
#   after ray.init(): 401
#   with its token: 200
#   with RAY_AUTH_MODE=disabled: 200
set -eu
folder=$(mktemp -d /tmp/ray_XXXXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "ray[default]==2.60.0"
cat > "$folder/play.sh" <<'SCRIPT'
ip link set lo up
export RAY_USAGE_STATS_ENABLED=0 RAY_agent_register_timeout_ms=120000 HOME="$1/home"
ray="$1/venv/bin/ray"
start() {
    for turn in 1 2 3 4; do
        "$ray" start --head --num-cpus=1 --dashboard-host=127.0.0.1 --dashboard-port=8265 \
            --object-store-memory=100000000 --temp-dir="$HOME/$1$turn" >"$HOME/log" 2>&1 && return 0
        "$ray" stop --force >/dev/null 2>&1
    done
    cat "$HOME/log"
    return 1
}
ask() { curl -s -o /dev/null -w '%{http_code}' "$@" http://127.0.0.1:8265/api/jobs/; }
mkdir -p "$HOME"
start a && echo "before: $(ask)"
"$ray" stop --force >/dev/null 2>&1
"$1/venv/bin/python" -c "
import ray
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100000000, _temp_dir='$HOME/i')
ray.shutdown()" >/dev/null 2>&1
start b && echo "after ray.init(): $(ask)"
echo "with its token: $(ask -H "Authorization: Bearer $(cat "$HOME/.ray/auth_token")")"
"$ray" stop --force >/dev/null 2>&1
RAY_AUTH_MODE=disabled start c && echo "with RAY_AUTH_MODE=disabled: $(ask)"
"$ray" stop --force >/dev/null 2>&1
SCRIPT
unshare -rn --fork --kill-child bash "$folder/play.sh" "$folder" | tee "$folder/seen"
printf 'before: 200\nafter ray.init(): 401\nwith its token: 200\nwith RAY_AUTH_MODE=disabled: 200\n' |
    diff "$folder/seen" - && echo "as it was seen"
