#!/bin/sh
# pandas 3.1.1 writes an index of integers that follow each other to Parquet as metadata alone, any other one as a column:
# `set_index("id")` makes a RangeIndex of the former. Readers other than pandas have no `id`, so a table that is written
# day by day has the column on days with a gap in its ids, and has it not on the others.
#
# Seen:
#   consecutive: ['x']
#   with a gap: ['x', 'id']
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "pandas==3.1.1" "pyarrow==25.0.1"
cd "$folder"
venv/bin/python - <<'PYTHON'
import pandas as pd
import pyarrow.parquet as pq

for name, ids in {"consecutive": [10, 11, 12], "with a gap": [10, 11, 13]}.items():
    pd.DataFrame({"id": ids, "x": [1.0, 2.0, 3.0]}).set_index("id").to_parquet("day.parquet")
    columns = pq.read_schema("day.parquet").names
    print(f"{name}: {columns}")
    assert ("id" in columns) == (name == "with a gap"), "it has changed"
PYTHON
