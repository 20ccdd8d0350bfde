"""The model of the example: does a flight arrive more than 15 minutes late?

Logistic regression by stochastic gradient descent over hashed categorical features, trained on from split to split. It
knows what is known before departure: airline, route, scheduled hour, weekday, distance. Nothing that happens
later (departure delay, air time, arrival) is a feature. Flights that never arrived where they should (cancelled or
diverted, 2.8 %) have no answer to the question and are left out of training and of evaluation.

A checkpoint is one file of plain arrays: what `SGDClassifier` needs to go on exactly where it stopped. No pickle.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

# Imported once by the warm process and then forked: an attempt does not pay the second it takes.
from sklearn.linear_model import SGDClassifier

if TYPE_CHECKING:
    import pyarrow as pa

    from trainflow.operators.training.training_context import EvaluateContext, TrainContext

Array = np.ndarray[Any, Any]

LATE_MINUTES = 15
MODEL = "model.npz"
LABEL = "arr_delay"
COLUMNS = ["carrier", "origin", "dest", "hour", "month", "distance", "year", "day"]
#: what is hashed: single values, then values that occur together
FEATURES: list[tuple[str, ...]] = [
    ("carrier",),
    ("origin",),
    ("dest",),
    ("hour",),
    ("weekday",),
    ("miles",),
    ("origin", "hour"),
    ("carrier", "hour"),
    ("carrier", "origin"),
    ("origin", "dest"),
    ("weekday", "hour"),
    ("dest", "hour"),
    ("carrier", "dest"),
    ("carrier", "origin", "dest"),
]
#: weights: 2 ** bits. Besides, `origin` may name the airport from which the flights leave that a model is for
DEFAULTS: dict[str, Any] = {"bits": 14, "alpha": 1e-6, "eta0": 0.002, "batch_rows": 2048}


def train(ctx: TrainContext) -> dict[str, float]:
    """Train on from the parent (or from nothing) on every flight of the split, once, in an order that the seed fixes.

    Saves how far it is now and then: an attempt after a kill goes on from there and ends with the very same weights.
    """
    params = DEFAULTS | ctx.params
    model = load(ctx.start, params) if ctx.start else new_model(params)
    so_far: dict[str, Any] = ctx.saved.state if ctx.saved else {"rows": 0, "trained": 0, "loss": 0.0}
    batches = ctx.batches(columns=[*COLUMNS, LABEL], batch_size=params["batch_rows"])
    for batch in batches:
        so_far = learn(model, batch, params, so_far)
        ctx.progress(so_far["rows"], ctx.split.rows, loss=metrics(so_far)["loss"])
        ctx.save(batches.position, lambda folder: save(model, folder), state=so_far)
    save(model, ctx.output)
    return metrics(so_far)


def learn(
    model: SGDClassifier, batch: pa.RecordBatch, params: dict[str, Any], so_far: dict[str, Any]
) -> dict[str, Any]:
    """Train on one batch; the sums with it. Its loss is that of the model before it learnt from the batch."""
    features, late = examples(batch, params["bits"], params.get("origin"))
    loss = so_far["loss"]
    if len(late):
        loss += log_loss(probabilities(model, features), late) * len(late)
        model.partial_fit(features, late)
    return so_far | {"rows": so_far["rows"] + batch.num_rows, "trained": so_far["trained"] + len(late), "loss": loss}


def metrics(so_far: dict[str, Any]) -> dict[str, float]:
    """Metrics of the training so far: mean loss, and flights that it learnt from."""
    return {"loss": so_far["loss"] / max(so_far["trained"], 1), "trained_rows": float(so_far["trained"])}


def evaluate(ctx: EvaluateContext) -> dict[str, float]:
    """How well the checkpoint foretells a split it has not seen."""
    params = DEFAULTS | ctx.params
    model = load(ctx.parent.path, params)
    found, expected = [], []
    for batch in ctx.batches(columns=[*COLUMNS, LABEL]):
        features, late = examples(batch, params["bits"], params.get("origin"))
        found.append(probabilities(model, features))
        expected.append(late)
    return scores(np.concatenate(found), np.concatenate(expected))


# -- features ------------------------------------------------------------------------------------------------------


def examples(batch: pa.RecordBatch, bits: int, origin: str | None = None) -> tuple[csr_matrix, Array]:
    """The flights (from `origin`) that arrived: hashed features, one row each, and whether they were late (0 or 1)."""
    batch = batch.filter(batch[LABEL].is_valid())
    if origin is not None:
        batch = batch.filter(pc.equal(batch["origin"], origin))
    late = (batch[LABEL].to_numpy() > LATE_MINUTES).astype(np.int64)
    values = {name: _hashes(values) for name, values in _columns(batch).items()}
    indices = np.stack([_crossing(number, values, names) for number, names in enumerate(FEATURES)], axis=1)
    indices &= np.uint64(2**bits - 1)
    rows, width = indices.shape
    starts = np.arange(0, rows * width + 1, width)
    return csr_matrix((np.ones(rows * width), indices.ravel().astype(np.int32), starts), (rows, 2**bits)), late


def _columns(batch: pa.RecordBatch) -> dict[str, Array]:
    numbers = {name: batch[name].to_numpy() for name in ("hour", "month", "distance", "year", "day")}
    days = (numbers["year"] - 1970).astype("M8[Y]").astype("M8[M]") + (numbers["month"] - 1)
    dates = days.astype("M8[D]") + (numbers["day"] - 1)
    return {
        "hour": numbers["hour"],
        "weekday": dates.astype(np.int64) % 7,
        "miles": np.log2(numbers["distance"]).round(),
        **{name: batch[name] for name in ("carrier", "origin", "dest")},
    }


def _hashes(values: Any) -> Array:
    """One number a value, the same in every process."""
    if not isinstance(values, np.ndarray):  # text, as Arrow holds it
        encoded = values.dictionary_encode()
        words = np.array([zlib.crc32(word.encode()) for word in encoded.dictionary.to_pylist()], dtype=np.uint64)
        hashes: Array = words[encoded.indices.to_numpy()]
        return hashes
    return values.astype(np.int64).astype(np.uint64)


def _crossing(number: int, values: dict[str, Array], names: tuple[str, ...]) -> Array:
    """One hash for the values that occur together; `number` keeps equal values of different features apart."""
    mixed = np.full(len(values[names[0]]), number, dtype=np.uint64)
    for name in names:
        mixed = (mixed ^ values[name]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    return mixed


# -- the model -----------------------------------------------------------------------------------------------------


def new_model(params: dict[str, Any]) -> SGDClassifier:
    """A model that knows nothing yet."""
    model = SGDClassifier(
        loss="log_loss",
        alpha=params["alpha"],
        learning_rate="constant",  # the chain never ends: a rate that decays would stop learning
        eta0=params["eta0"],
        random_state=0,
    )
    features = 2 ** params["bits"]
    _restore(model, np.zeros((1, features)), np.zeros(1), 1.0)
    return model


def _restore(model: SGDClassifier, coef: Array, intercept: Array, t: float) -> None:
    model.classes_ = np.array([0, 1])
    model.coef_, model.intercept_, model.t_ = coef, intercept, t
    model.n_features_in_ = coef.shape[1]


def save(model: SGDClassifier, folder: Path) -> None:
    """Write the checkpoint's file."""
    np.savez_compressed(folder / MODEL, coef=model.coef_, intercept=model.intercept_, t=model.t_)


def load(folder: Path, params: dict[str, Any]) -> SGDClassifier:
    """The model of a checkpoint, ready to be trained on. Raises ValueError when `bits` is not what it was."""
    with np.load(folder / MODEL, allow_pickle=False) as arrays:
        coef, intercept, t = arrays["coef"], arrays["intercept"], float(arrays["t"])
    if coef.shape[1] != 2 ** params["bits"]:
        raise ValueError(f"the checkpoint has {coef.shape[1]} weights, params.bits = {params['bits']} asks for another")
    model = new_model(params)
    _restore(model, coef, intercept, t)
    return model


def probabilities(model: SGDClassifier, features: csr_matrix) -> Array:
    """How likely each flight is late."""
    margins = features @ model.coef_[0] + model.intercept_[0]
    found: Array = 1.0 / (1.0 + np.exp(-np.clip(margins, -30, 30)))
    return found


# -- metrics -------------------------------------------------------------------------------------------------------


def scores(found: Array, expected: Array) -> dict[str, float]:
    """auc, log_loss and brier of probabilities, with the share of late flights and the number of flights."""
    if not len(expected):
        return {"rows": 0.0}
    return {
        "auc": auc(found, expected),
        "log_loss": log_loss(found, expected),
        "brier": float(np.mean((found - expected) ** 2)),
        "base_rate": float(expected.mean()),
        "rows": float(len(expected)),
    }


def log_loss(found: Array, expected: Array) -> float:
    """Mean negative log likelihood."""
    return float(-np.mean(np.log(np.where(expected == 1, found, 1.0 - found))))


def auc(found: Array, expected: Array) -> float:
    """How often a late flight is ranked above one in time; a tie counts half. 0.5 when there is only one kind."""
    late = int(expected.sum())
    in_time = len(expected) - late
    if not late or not in_time:
        return 0.5
    _, places, counts = np.unique(found, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[places]
    return float((ranks[expected == 1].sum() - late * (late + 1) / 2.0) / (late * in_time))
