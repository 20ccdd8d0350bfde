"""What the control plane says about itself, and which processes there are: logs, and nothing secret in them.

Reading order
- `redaction` (what counts as a secret, pure), `logs` (set-up of the log of one process), `log_file`, `rotation`,
  `redacted_output` (what user code prints);
- `processes` (one process and no later one of its number), `process_table` (who descends from whom),
  `process_lifetime` (dies with its parent), `process_termination` (end them), `resource_exhaustion` (what ran out).

Invariants:
- A secret is cut out where text leaves the process (the formatter, the mirror), not where it is made: one place cannot
  be forgotten.
- Redacting is pure and never raises: a log line or a mirror entry is worth less than what it reports on.

A change breaks this when a value of `storage_options`, a password in a URL or a parameter named like a secret can reach
a log file, MLflow or an error message in the clear.
"""
