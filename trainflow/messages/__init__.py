"""What processes say to each other: typed JSON in length-prefixed frames, never pickles.

Reading order: `frames` (bytes), `workload` (scheduler → executor → worker, and how its process ended), `execution_api`
(attempt ⇄ control plane: requests, replies, the outcome), `http_protocol` (the same over HTTP, and a worker ⇄ API
server), `byte_ranges` (which part of a file a request asks for), `forkserver` (executor ⇄ warm worker), `triggerer`
(triggerer ⇄ its event loop), `parsed_file` (to a command), `notice` (to people).

Every message of an attempt carries its attempt id and deferral number; a stale one changes nothing.

A change breaks this when a message needs code to be imported in order to be decoded, or when a field changes its
meaning while attempts of the previous version may still be alive.
"""
