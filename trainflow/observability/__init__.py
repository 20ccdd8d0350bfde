"""What the control plane says about itself, and which processes there are: logs, and nothing secret in them.

Reading order
- `redaction` (what counts as a secret, pure), `redacted_output` (what user code prints), `logs` and `log_files` (the
  log of one process, and how large a log gets), `log_names` (what the log of an attempt is called);
- `processes` (which there are, who descends from whom), `process_lifetime` (how they end), `resource_exhaustion` (what
  ran out), `file_access` (whose file it is that keeps us out), `oom_kills` (what was killed for want of memory),
  `standard_streams` (output whose reader is gone, and terminals), `terminal_text` (what text of users may do to these,
  pure), `store_requests` (requests to stores, counted), `prometheus` (metrics as text), `http_delivery` (a POST to
  another system).

Invariants:
- A secret is cut out where text leaves the process (the formatter, the mirror), not where it is made: one place cannot
  be forgotten.
- Redacting is pure and never raises: a log line or a mirror entry is worth less than what it reports on.

A change breaks this when a value of `storage_options`, a password in a URL or a parameter named like a secret can reach
a log file, MLflow or an error message in the clear.
"""
