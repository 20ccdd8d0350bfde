"""Deferred waits: tens of thousands of triggers in one event loop, in a process of its own.

`event_loop` is that process: it runs user triggers and has no database. `triggerer` is its other half in the control
plane: claims waits, sends them over, and turns events into moves. When the process (`loop_process`) ends or blocks, a
note that both share (`running_note`, written by `noted_steps`) says which trigger ran, and `crash_causes` what follows.

A change breaks this when a trigger is told `on_kill` because it moved to another process, when a wait can end twice,
or when a blocked loop goes unnoticed.
"""
