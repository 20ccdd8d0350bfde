"""The simulation: scheduler, ledger and triggerer against random crashes, in simulated time, from one seed.

What is real: the scheduler with its phases, the execution service, recovery, the triggerer and what its triggers look
at, every SQL statement (on a SQLite database in memory), and all of a task process between its line to the control
plane and its store: the task runner, the operators, the rule that chooses the next split, the ledger and the steps of
the commit. What is simulated: the clock, processes (an attempt runs as a `fiber`, which can be killed wherever it
pauses), the executor that starts and watches them, the store, the sample table, the function that trains, and the
people and machines that interfere (`faults`).

One seed is one history. A random driver lets one actor take one named step at a time; a plan of faults, drawn from the
same seed, lets some happen between any two of them. After each step the invariants of a chain are asserted over
everything that the step changed. When the faults are over the chain must come to its end by itself.

Invariants
- A seed always gives the same history, also after other seeds in the same process.
- Nothing here decides what the product decides: a simulated process only does what a real one does.
- Each invariant is proven able to fail: `test_planted_bugs`, `test_planted_progress_bugs` and `test_planted_chain_bugs`
  plant a bug for each.

A change breaks this when an actor does two things in one step that a crash could part, or when a check trusts what the
product says of itself where the rows or the files could be looked at.

Reading order: `run` (what to call), `plan`, `driver`, `world`, then the actors `engine`, `executor`, `process` (with
`worker`, `fiber`, `training`), `trigger_loop`, `people`, then `faults`, `environment` (of all of them), `database`,
`memory_store`, `table`, `pipeline`, and `invariants`, `ledger_check`, `chain_check` (with `committed`,
`upstream_check`, `model_check`), `chain_ends`.
"""
