"""Deferred waits: tens of thousands of triggers in one event loop, in a process of its own.

Reading order: `event_loop` (that process: it runs user triggers and has no database), `triggerer` (its other half in
the control plane: claims waits, sends them over, and turns events into moves), `loop_process` (how it is started and
ended), `loop_watchdog` (when it counts as blocked). When it ends or blocks, a note that both share says which trigger
ran, and `crash_causes` what follows.

Invariant: a wait ends once, with one event, one failure or one time-out.

A change breaks this when a trigger is told `on_kill` because it moved to another process, when a wait can end twice,
or when a blocked loop goes unnoticed.
"""
