"""Read pipeline files: find them, have each parsed in a child process with a time limit, keep what came out.

Reading order: `files` (which files there are, which have changed, and what is read before there is an engine),
`processor` (has them parsed, stores documents and import problems), `parsing_worker` (where).

Invariant: the process that parses is forked from a warm worker; this one never imports a pipeline.

A change breaks this when a broken or hanging file keeps another one from being read.
"""
