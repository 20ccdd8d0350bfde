"""What about a model must not change along a chain, kept beside its files and compared before it is trained on.

Many libraries train on without a word when the objective, the order of the columns or the categories are not those that
the model was trained with before: LightGBM and XGBoost take another objective, LightGBM permuted columns.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from trainflow.errors import FailException, InputError
from trainflow.identifiers import canonical_json

FILE = "signature.json"
VERSION = 1
#: how much of a value a message shows
_SHOWN_CHARACTERS = 80


class ModelSignature:
    """Facts about a model by name, plain JSON: objective, names of its columns in their order, classes, settings.

        signature = ModelSignature(objective="binary", features=FEATURES)
        signature.check(ctx.start)
        …
        signature.save(ctx.output)

    `save` it with the model in each folder that training goes on from, those of `ctx.save` too.
    """

    def __init__(self, **facts: Any) -> None:
        """Raises InputError for a fact that JSON has no form for."""
        try:
            self._facts: dict[str, Any] = msgspec.json.decode(canonical_json(facts))
        except (TypeError, ValueError) as error:
            raise InputError(f"ModelSignature(…): facts are plain JSON values: {error}") from None

    def check(self, folder: Path | None, *, accept: Collection[str] = ()) -> None:
        """Compare with what was saved in the folder of a checkpoint or a save; None: training begins from nothing.

        Names in `accept` may differ. A name that was not saved is kept from now on. Raises FailException, which no
        retry helps, for a fact that is another one or is not given any more; InputError where nothing was saved, but
        for a checkpoint of before there was a signature (`accept` names "signature").
        """
        if folder is None:
            return
        saved = self._saved(folder, accept)
        differences = [
            difference
            for name, value in saved.items()
            if name not in accept and (difference := self._difference(name, value))
        ]
        if differences:
            raise FailException(
                f"the model to go on from was trained otherwise: {'; '.join(differences)}. Many libraries would train "
                "on without a word. Undo the change, train a branch or a stage of its own from nothing, or, where it "
                "is meant, name it: ModelSignature.check(…, accept=[…])"
            )

    def save(self, folder: Path) -> None:
        """Write it into a folder, beside the model."""
        (folder / FILE).write_bytes(msgspec.json.format(canonical_json({"version": VERSION, "facts": self._facts})))

    def _saved(self, folder: Path, accept: Collection[str]) -> dict[str, Any]:
        path = folder / FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Saved).facts
        except FileNotFoundError:
            if "signature" in accept:
                return {}
            raise InputError(
                f"{path} is not there: what the model was trained with cannot be compared. Call ModelSignature.save(…) "
                "wherever the model is saved; for a checkpoint of before you did: check(…, accept=['signature'])"
            ) from None
        except msgspec.DecodeError as error:
            raise InputError(f"{path} is no signature that ModelSignature has saved: {error}") from None

    def _difference(self, name: str, saved: Any) -> str:
        if name not in self._facts:
            return f"{name} was {_shown(saved)}, and is not given now"
        now = self._facts[name]
        if canonical_json(now) == canonical_json(saved):
            return ""
        if isinstance(now, list) and isinstance(saved, list):
            return _difference_of_lists(name, saved, now)
        return f"{name} was {_shown(saved)}, and is {_shown(now)} now"


class _Saved(msgspec.Struct):
    version: int
    facts: dict[str, Any]


def _difference_of_lists(name: str, saved: list[Any], now: list[Any]) -> str:
    """Which members came or went; where both hold the same, the first place at which they differ."""
    before, after = ({canonical_json(each): each for each in values} for values in (saved, now))
    gone = [value for key, value in before.items() if key not in after]
    new = [value for key, value in after.items() if key not in before]
    said = [f"without {_shown(gone)}"] * bool(gone) + [f"with {_shown(new)} besides"] * bool(new)
    if said:
        return f"{name} is {' and '.join(said)}"
    if len(saved) != len(now):
        return f"{name} had {len(saved)} members, and has {len(now)} now"
    pairs = zip(map(canonical_json, saved), map(canonical_json, now), strict=True)
    place = next(place for place, (one, other) in enumerate(pairs) if one != other)
    return f"{name}[{place}] was {_shown(saved[place])}, and is {_shown(now[place])} now: the same in another order"


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
