"""The columns of a split: one type for each over all files, values as they were stored, or a refusal before training.

Invariants:
- The type of a column is a join: it depends on which types the files have and not on their order, nor on how the files
  are dealt to splits. Whether a value fits decides about a refusal, never about a type.
- A cast is exact or raises. Arrow's own casts lose without an error (1e300 as float32 is inf, 2 as bool is True, "7"
  as a number is 7), so only pairs of types that `common_type` knows are cast, and each leaf whose values decide is
  compared.
- Statistics of a Parquet footer prove that values are inside a range, and nothing else: writers cut the bounds of long
  text, leave them out beside NaN, or write none. What they do not prove is read.

A change breaks this when the order of files or the size of a split changes a type, or when a pair of types is cast that
`common_type` does not know.

Reading order: `types` (a type as text, for split and ledger) · `common_type` (the rule) · `cast` (values) · `unify`
(over the files of a split and its chain) · `bounds` (ranges) · `path_columns` (columns in
the names of folders) · `partition_columns` (of a partition, beside those before it).
"""
