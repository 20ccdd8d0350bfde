"""The rows of a split, in an order that is part of what a saved position means.

Reading order: `order` (windows of row groups, and which rows are whose of several ranks: pure arithmetic), `reading`
(row groups become record batches, cast and checked), `batches` (what a training function iterates, and its position).

A change breaks this when it changes an order that positions were saved in (`order.SHUFFLE_ROWS`, the hashes).
"""
