"""The command line: parses words, calls `trainflow.actions` and `trainflow.insight`, draws what they return.

`main` registers commands and turns errors into messages and exit codes: 0 done, 1 the chain or task failed (or an audit
found something), 2 wrong input, 130 interrupted. `commands` has a module for each command or noun, `live` what a
terminal shows while a pipeline trains, `render` tables for people and JSON (stable keys) for programs. `arguments`
has the words that many commands know. What a person names is looked up in `trainflow.workspace`.

Nothing heavy is imported at module level: `trainflow --help` must answer at once.
"""
