#!/bin/sh
# apache-airflow-providers-celery 3.26.0, the newest one with Airflow 3.3.2, asks for `celery[redis]>=5.5.0,<6` and takes
# Celery 5.7.0, whose `celery.backends.database` has no `retry` any more. `airflow celery worker` then says that the
# feature needs a newer Airflow ("Failed to import providers_configuration_loaded … >= 2.8.0"), the scheduler that
# ":CeleryExecutor:" cannot be loaded; the ImportError itself is seen only when the module is imported by hand.
# `celery<5.7` helps.
#
# Seen:
#   celery 5.7.0: ImportError: cannot import name 'retry' from 'celery.backends.database'
#   celery 5.6.3: imported
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "apache-airflow==3.3.2" "apache-airflow-providers-celery==3.26.0" "celery[redis]==5.7.0"
export AIRFLOW_HOME="$folder/home"
look() {
    "$folder/venv/bin/python" - <<'PYTHON'
import celery
try:
    import airflow.providers.celery.executors.celery_executor
    said = "imported"
except ImportError as error:
    said = f"ImportError: {str(error).partition(' (')[0]}"
print(f"celery {celery.__version__}: {said}")
PYTHON
}
newest=$(look 2>/dev/null | grep "^celery ")
"$folder/venv/bin/pip" install -q "celery[redis]==5.6.3"
older=$(look 2>/dev/null | grep "^celery ")
printf '%s\n%s\n' "$newest" "$older"
case "$newest" in *"cannot import name 'retry'"*) ;; *) exit 1 ;; esac
case "$older" in *": imported") ;; *) exit 1 ;; esac
