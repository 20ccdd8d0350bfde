"""Read pipeline files: find them, have each parsed in a child process with a time limit, keep what came out.

`files` says which files there are and which have changed; `processor` has them parsed and stores documents and import
problems; `early_parse` begins before there is an engine. The process that parses is forked from a warm worker; this one
never imports a pipeline.

A change breaks this when a broken or hanging file keeps another one from being read.
"""
