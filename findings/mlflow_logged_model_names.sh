#!/bin/sh
# MLflow 3.17.2, SQLite store. An experiment, a run, a registered model, a param and a metric may all have a dot in their
# name; a logged model may not, nor a percent sign or a quote: INVALID_PARAMETER_VALUE. A name that is good for
# `create_registered_model` ("flights.tuned") is therefore none for `create_logged_model`, which tells the same thing.
#
# Seen:
#   experiment a.b: accepted
#   run a.b: accepted
#   param a.b: accepted
#   metric a.b: accepted
#   registered model a.b: accepted
#   logged model a.b: INVALID_PARAMETER_VALUE
#   logged model a%b: INVALID_PARAMETER_VALUE
#   logged model a b: accepted
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlflow-skinny==3.17.2 sqlalchemy==2.0.51 alembic==1.16.5
cat > "$folder/tell.py" <<'PYTHON'
import sys

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

client = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
experiment = client.create_experiment("e", artifact_location=f"{sys.argv[1]}/artifacts")
run = client.create_run(experiment).info.run_id


def tell(what, call):
    try:
        call()
    except MlflowException as error:
        print(f"{what}: {error.error_code}")
    else:
        print(f"{what}: accepted")


tell("experiment a.b", lambda: client.create_experiment("a.b", artifact_location=f"{sys.argv[1]}/others"))
tell("run a.b", lambda: client.create_run(experiment, run_name="a.b"))
tell("param a.b", lambda: client.log_param(run, "a.b", 1))
tell("metric a.b", lambda: client.log_metric(run, "a.b", 1))
tell("registered model a.b", lambda: client.create_registered_model("a.b"))
for name in ("a.b", "a%b", "a b"):
    tell(f"logged model {name}", lambda: client.create_logged_model(experiment, name=name, source_run_id=run))
PYTHON
MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" "$folder/tell.py" "$folder" 2> "$folder/log" > "$folder/said" || {
  tail -5 "$folder/log"
  exit 1
}
cat "$folder/said"
sed -n 's/^#   //p' "$0" > "$folder/expected"
diff "$folder/expected" "$folder/said"
