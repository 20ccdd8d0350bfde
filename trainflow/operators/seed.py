"""The seed of a split: the same whenever, wherever and however often it is trained on."""

from __future__ import annotations

import hashlib

from trainflow.identifiers import canonical_json

SEED_BITS = 32


def seed_of(chain: str, split_digest: str, generation: int = 0) -> int:
    """A pure function of the chain (`pipeline/stage/branch`), the split and how often the chain was rewound before, in
    [0, 2^32): what NumPy accepts too."""
    key = canonical_json([chain, split_digest, generation] if generation else [chain, split_digest])
    return int.from_bytes(hashlib.sha256(key).digest()[: SEED_BITS // 8], "big")
