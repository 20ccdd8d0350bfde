"""What is new since the last look, while a pipeline trains.

`view` (what a look shows), `feed` (look again, at what has happened since), `ended_run` (sum up a run that has ended).
"""
