"""A place for checkpoints: files under one root, some of which must be created exclusively.

Reading order: `store` (the contract, and which kinds of store cannot fence), `local_store`, `object_store`,
`retry_throttled` (a store that asks for fewer requests is waited for, a bounded time). A new kind of store implements
`store.Store` and passes `trainflow.testing.store_contract`.
"""
