"""Disturb real pipelines, run by the installed command, for as long as wanted; then ask the models what they saw.

    python -m tests.storm --minutes 30 --seed 7
    python -m tests.storm --store s3 --kills 60
    python -m tests.storm --database mariadb --executor ray --kills 10

A storm is a series of rounds. A round lays out a project of a random shape, starts it, and does to it what happens to
machines: processes are killed and frozen, samples are published again while they are read, clocks jump, disks fill up,
the home is deleted. Then it is left alone until it is caught up, and every row is looked for in the files of the model
itself: the ledger's own word counts for nothing here. The same seed gives the same rounds; what strikes when depends on
the machine.

A change breaks this when a model is judged by what the ledger says, or when a disturbance strikes what the round did
not start.

Reading order: `shapes` (the pipelines and what their models must hold), `disturbances` (what is done), `rounds` (one
round), `database_kills`, `__main__` (the command). Belongs to no ordinary test run: a round takes tens of seconds.
"""
