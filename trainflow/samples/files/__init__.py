"""One sample file: whether it is whole, what its footer says, what its content is, and that it is still the same.

Reading order: `fingerprint` (a digest of the content, and a hint that saves looking at it again), `parquet_file` (the
one place where a Parquet file is opened), `footers` (rows, types, nulls and ranges), `truncation` (is it completely
written? told from its last bytes), `file_binding` (what is read is what the split names).

A change breaks this when a footer is read twice, or when rows are handed out of a file that is another one by now.
"""
