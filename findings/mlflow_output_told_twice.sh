#!/bin/sh
# MLflow 3.17.2, SQLite store. To log the same dataset or logged model as an input of a run a second time changes
# nothing; to log the same logged model as an output a second time fails with the database's own IntegrityError, also
# with another step. What delivers at least once (a retry after an answer that was lost) has to look first what the run
# has.
#
# Seen:
#   dataset twice: accepted, 1 input
#   output twice: BAD_REQUEST UNIQUE constraint failed
#   output with another step: BAD_REQUEST UNIQUE constraint failed
#   model as input twice: accepted
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlflow-skinny==3.17.2 sqlalchemy==2.0.51 alembic==1.16.5 pandas==2.3.3
cat > "$folder/tell.py" <<'PYTHON'
import sys

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput
from mlflow.exceptions import MlflowException

client = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
experiment = client.create_experiment("e", artifact_location=f"{sys.argv[1]}/artifacts")
run = client.create_run(experiment).info.run_id
made, read = (client.create_logged_model(experiment, name=name, source_run_id=run) for name in ("made", "read"))
dataset = DatasetInput(Dataset("d", "digest", "local", "{}"), [InputTag("mlflow.data.context", "train")])


def twice(what, first, second):
    first()
    try:
        second()
    except MlflowException as error:
        known = "UNIQUE constraint failed"
        return f"{what}: {error.error_code} {known if known in str(error) else error}"
    return f"{what}: accepted"


def inputs(**given):
    return lambda: client.log_inputs(run, **given)


def output(step):
    return lambda: client.log_outputs(run, [LoggedModelOutput(made.model_id, step)])


said = twice("dataset twice", inputs(datasets=[dataset]), inputs(datasets=[dataset]))
print(f"{said}, {len(client.get_run(run).inputs.dataset_inputs)} input")
print(twice("output twice", output(1), output(1)))
print(twice("output with another step", lambda: None, output(2)))
model = [LoggedModelInput(read.model_id)]
print(twice("model as input twice", inputs(models=model), inputs(models=model)))
PYTHON
MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" "$folder/tell.py" "$folder" 2> "$folder/log" > "$folder/said" || {
  tail -5 "$folder/log"
  exit 1
}
cat "$folder/said"
cat > "$folder/expected" <<'TEXT'
dataset twice: accepted, 1 input
output twice: BAD_REQUEST UNIQUE constraint failed
output with another step: BAD_REQUEST UNIQUE constraint failed
model as input twice: accepted
TEXT
diff "$folder/expected" "$folder/said"
