"""The command line: parses words, calls `trainflow.actions` and `trainflow.insight`, draws what they return.

Reading order: `entry` and `main` (all commands, errors as messages and exit codes: 0 done, 1 the chain or task failed
or an audit found something, 2 wrong input, 130 interrupted), `arguments` (words that many commands know), `commands` (a
module for each noun, or verb that stands alone), `live` (what a terminal shows while a pipeline trains),
`start_or_follow` (become the engine or follow the one that is alive), `render` (tables for people, JSON with stable
keys for programs). What a person names is looked up in `trainflow.workspace`.

Invariant: nothing heavy is imported at module level, `trainflow --help` answers at once.

A change breaks this when a command decides something itself that a REST API would have to decide again, or when a key
of its JSON changes its meaning.
"""
