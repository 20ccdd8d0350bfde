"""What a person can do: one function each, called by the command line and by whatever else lets a person act.

`start` (begin to train a pipeline, or go on), `engine_client` (through the engine that is alive), `repair` (train holes
that have arrived), `regrid` (go on with samples cut otherwise), `promoted_stages` (what follows a promotion by hand).

Says nothing to a terminal and reads nothing from one: values in, values out, errors from `trainflow.errors`.
"""
