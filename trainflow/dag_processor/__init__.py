"""Read pipeline files: find them, have each parsed in a child process with a time limit, keep what came out.

Reading order: `files` (which files there are and which have changed), `processor` (has them parsed, stores documents
and import problems), `early_parse` (begins before there is an engine).

Invariant: the process that parses is forked from a warm worker; this one never imports a pipeline.

A change breaks this when a broken or hanging file keeps another one from being read.
"""
