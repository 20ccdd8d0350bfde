"""What one run trains on, as it is handed to a training function: the content of a split and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainflow.samples.split_content import SplitContent

if TYPE_CHECKING:
    from trainflow.samples.batches import Batches

DEFAULT_BATCH_ROWS = 65_536


class Split(SplitContent, frozen=True, omit_defaults=True, dict=True):
    """The contiguous run of partitions that one run trains on, and a way to read its rows."""

    def batches(
        self,
        columns: list[str] | None = None,
        batch_size: int = DEFAULT_BATCH_ROWS,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        position: Mapping[str, Any] | None = None,
        epochs: int = 1,
    ) -> Batches:
        """Arrow record batches over the Parquet files, `batch_size` rows each.

        The order of the rows depends only on the split and `seed`: chronological for None, shuffled otherwise, in
        another order in each of the `epochs`. Batches are dealt to the ranks in turn; over all ranks every row comes
        exactly once an epoch. `.position` of the returned
        iterator (JSON, the same on every rank after the same number of batches) resumes exactly, also with another
        `world_size` or `batch_size`.

        Raises InputError for a position of another split or seed, SampleUnreadable for a file that cannot be read or
        is no longer what the split says.
        """
        from trainflow.samples.batches import Batches

        return Batches(
            self,
            columns=columns,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            position=position,
            epochs=epochs,
        )
