"""One module a command, or a noun with its verbs. Each says in its docstring which keys its JSON has."""
