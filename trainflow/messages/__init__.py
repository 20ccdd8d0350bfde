"""What processes say to each other: typed JSON in length-prefixed frames, never pickles.

Reading order: `frames` (bytes), `workload` (scheduler → executor → worker), `requests` (attempt → execution API),
`outcome` (how an attempt ended), `execution_api` (the protocol both sides program against), `process_exit` (how its
process ended), `forkserver` (executor ⇄ warm worker), `triggerer` (triggerer ⇄ its event loop), `parsed_file` and
`store_problem` (to a command), `notice` (to people).

Every message of an attempt carries its attempt id and deferral number; a stale one changes nothing.

A change breaks this when a message needs code to be imported in order to be decoded, or when a field changes its
meaning while attempts of the previous version may still be alive.
"""
