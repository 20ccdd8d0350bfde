"""One module a command, or a noun with its verbs. Each says in its docstring which keys its JSON has.

Reading order: `start`, `status`, `audit`; the others are alike: read words, call one function of `trainflow.actions` or
`trainflow.insight`, hand the value to `trainflow.cli.render`.

A change breaks this when a command imports at module level what `--help` does not need.
"""
