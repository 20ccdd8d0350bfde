"""Where a project and its home are, and the settings a person may change.

Reading order: `project` (the folder), `home` (what trainflow keeps there), `units`, `model` (every setting, its unit
and default), `executors` (the tables of `[executors]`), `executor_config` (what a task asks of one), `pod_template`,
`api_address` (where the API server listens), `outbox_channels` (which systems are told of runs), `openlineage` and
`telemetry` (their settings, in their own names), `environment` (variables), `load` (file, environment variables,
precedence). `insight.settings` says what holds, and where that comes from.

A change breaks this when a module reads a setting at import time, or when two places read the same variable.
"""
