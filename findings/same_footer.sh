#!/bin/sh
# PyArrow 25.0.1 (by its defaults) and Polars 2.1.0 write the very same Parquet footer for other rows: labels 0 and 1 the
# other way round (both), random numbers in another order (PyArrow). Sizes, places and statistics of every column chunk
# are equal, so that a digest of the footer does not tell one table from the other.
#
# Seen:
#   pyarrow 25.0.1 labels inverted: footers equal, data differ
#   pyarrow 25.0.1 rows permuted: footers equal, data differ
#   polars 2.1.0 labels inverted: footers equal, data differ
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "pyarrow==25.0.1" "polars==2.1.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

random = np.random.default_rng(0)
rows = 200_000
ids, features = random.integers(0, 1 << 62, rows), random.random(rows)
labels, order = random.integers(0, 2, rows), random.permutation(rows)
table = {"id": ids, "x": features}
cases = {
    "labels inverted": ({**table, "label": labels}, {**table, "label": 1 - labels}),
    "rows permuted": (table, {"id": ids[order], "x": features[order]}),
}


def footer(data):
    return data[-int.from_bytes(data[-8:-4], "little") - 8 :]


def by_pyarrow(columns):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def by_polars(columns):
    sink = io.BytesIO()
    pl.DataFrame(columns).write_parquet(sink)
    return sink.getvalue()


changed = False
for name, version, write, case in (
    ("pyarrow", pa.__version__, by_pyarrow, "labels inverted"),
    ("pyarrow", pa.__version__, by_pyarrow, "rows permuted"),
    ("polars", pl.__version__, by_polars, "labels inverted"),
):
    one, other = map(write, cases[case])
    equal = footer(one) == footer(other)
    print(f"{name} {version} {case}: footers {'equal' if equal else 'differ'}, data {'equal' if one == other else 'differ'}")
    changed |= not equal or one == other
sys.exit(changed)
PYTHON
