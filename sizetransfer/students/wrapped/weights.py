"""Weights of a file into a module: safetensors, or torch's own format with numbers alone.

A name in the file may differ from the module's by what others put around a model; each such change is said:

- ``module.`` (data-parallel training and averaged models), ``_orig_mod.`` (compiled modules), ``model.``, ``net.``,
  ``ema.``, ``ema_model.``, ``shadow.`` and so on in front of all names;
- a mapping inside the file (``state_dict``, ``model``, ``ema``); where a file holds plain and averaged weights, the
  averaged ones are taken, since models are sampled with these;
- the two forms of ``weight_norm``: ``weight_g`` and ``weight_v`` of the older, ``parametrizations`` of the newer.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sizetransfer.contracts.errors import SpecError

AVERAGED = ("ema", "ema_model", "model_ema", "ema_state_dict", "shadow", "averaged")
PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "module", "_orig_mod", "denoiser", "score")
COUNTERS = {"n_averaged", "num_updates", "decay", "initted", "step"}
"""Numbers that stand beside averaged weights and are none."""

_Candidate = tuple[dict[str, Tensor], tuple[str, ...]]
_FORMATS = {".safetensors", ".pt", ".pth", ".ckpt", ".bin"}
_OLD_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def load_weights(module: nn.Module, path: Path | str) -> tuple[str, ...]:
    """Load a file into a module.

    Args:
        module: its names decide; of a compiled module those of the original.
        path: ``.safetensors``, or ``.pt``, ``.pth``, ``.ckpt``, ``.bin`` that torch reads with ``weights_only``.

    Returns:
        What was changed of the names, in words.

    Raises:
        SpecError: no such file, a file that holds more than numbers, or weights that are missing, unexpected or of
            another shape, all by name.
    """
    path = Path(path)
    target = getattr(module, "_orig_mod", module)
    found, said = _chosen(_read(path), target, path)
    wanted = target.state_dict()
    _require_fit(found, wanted, path)
    target.load_state_dict({name: found[name] for name in wanted})
    return said


def _read(path: Path) -> Mapping[str, object]:
    if not path.is_file():
        raise _unreadable(path, "an existing file", "no such file", "correct the path")
    if path.suffix not in _FORMATS:
        raise _unreadable(path, f"one of {', '.join(sorted(_FORMATS))}", path.suffix or "no suffix", _SAVE)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), "")
        got = f"a pickle that runs code when it is read ({reason.strip()[:200] or 'refused by weights_only'})"
        raise _unreadable(path, "numbers alone", got, _SAVE) from None
    except Exception as error:  # of the readers, which raise many kinds
        raise _unreadable(path, "a file of weights", f"{type(error).__name__}: {str(error)[:200]}", _SAVE) from None
    if isinstance(content, Mapping):
        return {str(name): value for name, value in content.items()}
    raise _unreadable(path, "a mapping of names to tensors", type(content).__name__, _SAVE)


_SAVE = "save the weights with safetensors.torch.save_file(model.state_dict(), path)"


def _unreadable(path: Path, expected: str, got: str, fix: str) -> SpecError:
    return SpecError(
        "The weights cannot be read.", where=f"module, weights {path}", expected=expected, got=got, fix=fix
    )


def _tensors(content: Mapping[str, object]) -> dict[str, Tensor]:
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _chosen(content: Mapping[str, object], target: nn.Module, path: Path) -> _Candidate:
    """The candidate that fits best, averaged weights before plain ones, and what led to it."""
    wanted = set(target.state_dict())
    best: _Candidate = (_tensors(content), ())
    most = -1
    for tensors, said in _candidates(content, ()):
        named, how = _renamed(tensors, wanted)
        fitting = len(wanted & set(named)) - len(set(named) - wanted - COUNTERS)
        if fitting > most:
            most, best = fitting, (named, (*said, *how))
    if not best[0]:
        raise _unreadable(path, "tensors", f"the entries {', '.join(map(str, list(content)[:8]))}", _SAVE)
    return best


def _candidates(content: Mapping[str, object], said: tuple[str, ...]) -> Iterator[_Candidate]:
    """Averaged weights, then the tensors as they are, then those of mappings inside and behind prefixes."""
    for name in (*AVERAGED, *PLAIN):
        inner = content.get(name)
        if isinstance(inner, Mapping) and len(said) < 4:
            yield from _candidates(inner, (*said, f"taken from the entry {name!r}"))
        prefix = f"{name}."
        behind = {key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix)}
        if behind and len(said) < 4:
            word = "averaged weights, " if name in AVERAGED else ""
            yield from _candidates(behind, (*said, f"{word}prefix {prefix!r} left out"))
        if name == AVERAGED[-1]:
            yield _tensors(content), said


def _renamed(tensors: dict[str, Tensor], wanted: set[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The names of the other form of ``weight_norm``, where the module has that."""
    changed = dict(tensors)
    for new, old in _OLD_NORM.items():
        for here, there in ((new, old), (old, new)):
            for name in [name for name in changed if name.endswith(f".{here}") or name == here]:
                other = name.removesuffix(here) + there
                if name not in wanted and other in wanted:
                    changed[other] = changed.pop(name)
    return changed, (("weight_norm written in its other form",) if changed.keys() != tensors.keys() else ())


def _require_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted and name not in COUNTERS]
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if not any(problems.values()):
        return
    raise SpecError(
        "The weights do not fit the module.",
        where=f"module, weights {path}",
        expected=f"the module's {len(wanted)} tensors: {_listed(list(wanted))}",
        got="; ".join(f"{len(names)} {sort}: {_listed(names)}" for sort, names in problems.items() if names),
        fix="build the module with the arguments that it was trained with (arguments:), or take its own file",
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
