"""A DAG as data: what the scheduler, the database and the command line know of user code.

Reading order: `document` (the types and the canonical bytes; imports nothing of the authoring side), `from_dag` (turns
a DAG into a document; runs only in processes that run user code, and writes down the values of template fields).

A change breaks this when the same pipeline gives other bytes in another process, at another time or at another path:
every difference becomes a new version of the DAG.
"""
