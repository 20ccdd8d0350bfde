"""A person at the command line, played from a seed, and a judge who trusts nothing but files.

    python -m tests.people --minutes 30 --seed 7
    python -m tests.people --seed 7 --only --deeds 60 --keep --said

A session lays out a project, and a person works in it with the installed `trainflow` as people do: starts, Ctrl-C,
kill -9, rewinds, forks, promotions, edits of the pipeline file, samples that are late, replaced or deleted, a full
disk, files from the future, two starts at once, a copy of a running project, an upgrade of the package. Then everything
is put right and started until each chain is caught up.

The judge (`replay`) reads the ledger's JSON, the model's files, and the diary in which each attempt of the training
function writes the rows it is given. It says for each checkpoint whose files are kept which bytes an undisturbed
training of the same splits would have written. What commands print is judged too (`words`): no traceback, no refusal
without what to do, an exit code that goes with it, and an audit that says what the judge says.

A change breaks this when a module here imports trainflow (`tests/unit/test_people.py` looks), or when a deed changes
what the session did not lay out. What is drawn depends on the seed alone, what it meets on the machine.

Reading order: `layout` (the project), `replay` (the judge), `words`, `commands`, `deeds` (what the person can do),
`session`, `planted` (bugs that it has to find), `__main__`.
"""
