"""Around a training function or program: what it is given, what it returns, and how it saves inside its split.

Reading order: `training_context` (what a function is given, and the metrics it may return and report), `save_points`
(how far it is, and when that is written), `model_signature` (what about a model must not change), `training_task` (what
a program is told that trains instead of a function), `command` (how it is followed, or several processes),
`saves_folder` (its saves), `ranks` (processes that train together), `rank_protocol` (what they tell each other),
`rank_connection` and `remote_rank` (the same between hosts), `background_saves` (saves that are uploaded while training
goes on), `ended_training` (one that has ended, until it is committed).

Invariants
- The same split of the same chain has the same seed, whenever and wherever it is trained on.
- A save is whole or not there; where it belongs to other rows than those of the split, training begins anew.

A change breaks this when importing a name loads pyarrow or mlflow, or when two attempts write into one folder.
"""
