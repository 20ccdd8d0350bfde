"""Samples: which partitions there are, which are ready and good, and what the next split is.

Purpose: answer "what comes after the watermark" from the samples alone, at a cost that grows with what is new.

Reading order: `spec` (what a person says), then the modules that answer it.
"""
