"""Files of samples and of checkpoints, on local disks and in object stores: the only package that opens any.

Reading order: `store` (the contract: `Storage` is what can be listed and read, `Store` is one that also creates
exclusively), `local` (by `atomic_files`, also on a disk in the network), `sftp` (as on a local disk, through
`sftp_connection`), `object_store` (a store that asks for fewer requests is waited for, a bounded time, as `retries`
says; `local_copies` have it asked less) over a `driver`: that of the package `obstore`, or `fsspec_driver`, with its
requests counted; `range_reader` (a file read piece by piece). `drivers` (which one), `exclusive_creation` (what chains
rest on: which stores can do it, and whether this one does), `urls` (a URL and its options become a store),
`reachability` (asked before anything is begun), `errors` (what a driver raises becomes one of our exceptions, with
every secret masked).

Invariants:

- What fsspec takes as a URL and as options is what a user writes; nothing a user wrote is overridden.
- An error of a driver never leaves the package: it is raised as the exception of who opened the store, checkpoints
  (`StoreFailure`) or samples (`SampleUnreadable`), names the place and what to do, and holds no secret.
- No server of SFTP is trusted whose host key is not known, unless the options say so.
- No listing comes from a cache: another process may have written. A content does where a listing shows it unchanged.
- A file that is created exclusively is there whole or not at all, and stays when the power is cut.
- A local path loads neither fsspec nor obstore.

A change breaks this when another module opens a file of samples or checkpoints, or when a store that cannot create
exclusively is taken for one that can.

A new kind of store: CONTRIBUTING.md goes through it; it passes `trainflow.testing.store_contract`.
"""
