"""Splits of files with columns of any type."""

from __future__ import annotations

import pyarrow as pa

I32, I64, U8, U64 = pa.int32(), pa.int64(), pa.uint8(), pa.uint64()


F16, F32, F64, TEXT, LARGE = pa.float16(), pa.float32(), pa.float64(), pa.string(), pa.large_string()
