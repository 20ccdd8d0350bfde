"""(docstring: purpose, invariants, reading order)"""
