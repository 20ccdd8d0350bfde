"""What one run trains on: which partitions come after the watermark, up to the limits.

Reading order: `split_content` (the value that ledger and tasks hold), `split` (that and its rows; and one in the
making), `next_split` (the decision), `gap_policy` (what a partition that is not ready means), `late_partitions` (holes
that have come), `split_xcom` (from task to task).

Invariant: the same samples, watermark, limits and bounds give the same split, whatever asks and whenever.

A change breaks this when the time of asking moves a boundary while all partitions are there.
"""
