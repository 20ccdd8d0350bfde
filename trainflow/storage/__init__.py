"""Where samples and checkpoints are: local disks and object stores.

Reading order: `store` (the contract), `urls` (which store a URL means, and which kinds cannot fence), `local`,
`object_store`, `sample_files`, `throttling` (a store that asks for fewer requests is waited for, a bounded time). A new
kind of store implements `store.Store` and passes `trainflow.testing.store_contract`.
"""
