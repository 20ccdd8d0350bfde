#!/bin/sh
# Polars 2.1.0: `write_parquet(PartitionBy(folder, key=[...], max_rows_per_file=...))` numbers the files of a partition from
# 0. Written again with fewer rows it replaces the files with the same numbers and leaves those beyond: the partition holds
# rows of both, and nothing says so. A job that writes a partition again has to delete its folder first.
#
# Seen:
#   written with 3000 rows: 3 files, 3000 rows
#   written again with 500 rows: 3 files, 2500 rows
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "polars==2.1.0"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import polars

table = Path(sys.argv[1]) / "table"


def written(rows):
    day = polars.DataFrame({"id": range(rows), "date": ["2024-01-01"] * rows})
    day.write_parquet(polars.PartitionBy(table, key=["date"], max_rows_per_file=1000), mkdir=True)
    return len(list(table.rglob("*.parquet"))), len(polars.read_parquet(table / "**/*.parquet"))


seen = written(3000), written(500)
print(f"written with 3000 rows: {seen[0][0]} files, {seen[0][1]} rows")
print(f"written again with 500 rows: {seen[1][0]} files, {seen[1][1]} rows")
sys.exit(seen != ((3, 3000), (3, 2500)))
PYTHON
