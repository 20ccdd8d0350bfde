"""What deferred operators wait for, in the triggerer's event loop.

Each trigger looks at the world before it sleeps (what it waits for may have happened already), holds no secrets in its
arguments, and never blocks the loop: a listing goes through `in_thread`, and those who wait for the same thing share
one look (`poller`).

A change breaks this when a trigger's answer depends on what it saw before, since it may be started anew anywhere.

Reading order: `time`, `dag_state`, `poller`, `partition`.
"""
