#!/bin/sh
# pandas 3.1.1 with PyArrow 26.0.1: `to_parquet(folder, partition_cols=[...])` into a folder that holds the same partitions
# adds files of new names to them and replaces none, and says nothing. A job that is run again leaves each row twice. With
# `existing_data_behavior="delete_matching"`, which is handed on to PyArrow, partitions are replaced.
#
# Seen:
#   written again: 2 files, 6 rows of 3
#   written again with delete_matching: 1 file, 3 rows of 3
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "pandas==3.1.1" "pyarrow==26.0.1"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import pandas

day = pandas.DataFrame({"id": [1, 2, 3], "date": ["2024-01-01"] * 3})


def again(name, **options):
    table = Path(sys.argv[1]) / name
    for _ in range(2):
        day.to_parquet(table, partition_cols=["date"], **options)
    return len(list(table.rglob("*.parquet"))), len(pandas.read_parquet(table))


seen = again("plain"), again("replaced", existing_data_behavior="delete_matching")
print(f"written again: {seen[0][0]} files, {seen[0][1]} rows of 3")
print(f"written again with delete_matching: {seen[1][0]} file, {seen[1][1]} rows of 3")
sys.exit(seen != ((2, 6), (1, 3)))
PYTHON
