"""Plan a shrink of a model's layers, and apply it to the model and its optimizer state."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from zoo import AbstractSSM
from zoo.typing import checked

from ..cut import AbstractCut
from ..methods import AbstractMethod, Data, WhiteNoise
from ..model.layers import KeyPath, check_parameters, layers_of, path_name, replace_layers
from ..model.record import LayerData
from ..model.stacks import restacked, stacks_of, unstacked
from ..numerics.threads import in_threads, one_blas_thread
from ..optimizer.carry import MODES, carry
from ..plans import AbstractSpectrum, LayerPlan, Plan
from ..policies import AbstractPolicy, Tolerance
from . import known  # noqa: F401  (the families of the layers)


@one_blas_thread()
@checked
def plan(
    model: PyTree,
    *,
    policy: AbstractPolicy | None = None,
    method: AbstractMethod | None = None,
    tolerance: float | int | None = None,
    batch: Any = None,
) -> Plan:
    """Plan what `compress` would do to the `AbstractSSM` layers of `model`, any pytree that holds
    some. `policy` decides how many states stay (`compress.policies`; `Tolerance(0.01)` if not
    given). `method` gives the states their values (`compress.methods`; `WhiteNoise()` if not
    given). `tolerance=tau` is short for `policy=Tolerance(tau)`, `batch=x` for
    `method=Data(batch=x)`.

    Layers of Mamba and of linear attention need `Data`. A stack of layers, as
    `eqx.filter_vmap` makes it for a `scan`, has a row for each of its layers, which are cut to the
    largest of their ranks.

    ValueError if the model has no such layer, if a layer holds NaN or infinity or is not stable,
    and for arguments out of range, with the name of each.
    """
    wanted = _only_one(Tolerance(), policy=policy, tolerance=tolerance)
    how = _only_one(WhiteNoise(), method=method, batch=batch)
    policy = wanted if isinstance(wanted, AbstractPolicy) else Tolerance(wanted)
    method = how if isinstance(how, AbstractMethod) else Data(batch=how)
    flat = unstacked(model)
    layers = _checked_layers(flat)
    spectra = _spectra(layers, method, method.record(model, layers))
    by_path = {path_name(keys): spectrum for keys, spectrum in spectra.items()}

    def planned(ranks: Sequence[int]) -> Plan:
        return _filled(Plan(_rows(by_path, _common_in_stacks(model, layers, ranks))), model)

    def cut(ranks: Sequence[int]) -> PyTree:
        return _replaced(model, flat, layers, planned(ranks))

    return planned(policy.ranks(by_path, cut))


@one_blas_thread()
@checked
def compress(
    model: PyTree,
    opt_state: PyTree = None,
    *,
    policy: AbstractPolicy | None = None,
    method: AbstractMethod | None = None,
    tolerance: float | int | None = None,
    batch: Any = None,
    plan: Plan | None = None,
    moments: str = "transport",
) -> tuple[PyTree, PyTree]:
    """`model` with smaller `AbstractSSM` layers, and `opt_state` carried over to it.

    `model` is any pytree that holds such layers. `opt_state` is any optax state of it, or None.
    `policy`, `method`, `tolerance` and `batch` are those of `compress.plan`; an existing `plan`
    replaces them. Without any of them the tolerance is 0.01 by white noise, and the output of a
    layer then differs by at most 2 * sum(dropped sigma) * ||input||.

    The cut is computed in double precision. Classes, dtypes and settings stay, so a jitted training
    step is traced once more. Parts without a cut are returned as the same objects: model and state
    themselves if nothing is cut.

    A layer object in two places of the model is cut once if both have the same spectrum and rank.
    With data each place has its own inputs, and becomes a separate layer. Another version of the
    model, such as an average, follows the model's cut if it is part of the state, as in
    `compress(model, (opt_state, average))`. Inside `model` it is cut by itself.

    `moments` says what happens to the optimizer's moments of a layer that is cut:

    - "transport": carried into the new coordinates with the same meaning
      (`compress.optimizer.carry`);
    - "reset": zero;
    - "slice": the first entries of the old ones, as the public reference implementation does it.

    ValueError as for `plan`, for a plan of another model, for a plan together with a policy or a
    method, and for a state of another model.

    Source: Chahine, Nazari, Rus, Rusch, CompreSSM, ICLR 2026, arXiv 2510.02823.
    """
    if moments not in MODES:
        raise ValueError(f"`moments` must be one of {', '.join(MODES)}, got {moments!r}")
    made_from = {"policy": policy, "method": method, "tolerance": tolerance, "batch": batch}
    if plan is None:
        plan = _make_plan(model, **made_from)
    else:
        _only_one(plan, plan=plan, **made_from)
    flat = unstacked(model)
    layers = _checked_layers(flat)
    _check_plan(plan, layers)
    cuts = _cuts(layers, plan)
    if not cuts:
        return model, opt_state
    new_state = restacked(carry(unstacked(opt_state), layers, cuts, moments), opt_state)
    return _replaced(model, flat, layers, plan), new_state


_make_plan = plan


def _only_one(default: Any, **given: Any) -> Any:
    """The one of `given` that is not None, or the default. ValueError for several."""
    present = {name: value for name, value in given.items() if value is not None}
    if len(present) > 1:
        names = " and ".join(f"`{name}`" for name in present)
        raise ValueError(f"only one of {', '.join(given)} must be given, got {names}")
    return next(iter(present.values()), default)


def _checked_layers(model: PyTree) -> dict[KeyPath, AbstractSSM]:
    layers = dict(layers_of(model))
    if not layers:
        raise ValueError(f"`model` must hold an AbstractSSM layer, got a {type(model).__name__}")
    for keys, layer in layers.items():
        check_parameters(keys, layer)
    return layers


def _spectra(
    layers: Mapping[KeyPath, AbstractSSM],
    method: AbstractMethod,
    data: Mapping[KeyPath, LayerData | None],
) -> dict[KeyPath, AbstractSpectrum]:
    """The layers' spectra. A layer object in two places with the same data has one."""

    def identity(keys: KeyPath) -> tuple[int, ...]:
        seen = data[keys]
        arrays = () if seen is None else (id(seen.inputs), id(seen.gradients))
        return (id(layers[keys]), *arrays)

    kinds = {keys: identity(keys) for keys in layers}
    first: dict[tuple[int, ...], KeyPath] = {}
    for keys, kind in kinds.items():
        first.setdefault(kind, keys)

    def made(keys: KeyPath) -> AbstractSpectrum:
        layer = layers[keys]
        return method.spectrum(path_name(keys) or type(layer).__name__, layer, data[keys])

    spectra = dict(zip(first, in_threads(made, first.values()), strict=True))
    return {keys: spectra[kind] for keys, kind in kinds.items()}


def _rows(spectra: Mapping[str, AbstractSpectrum], ranks: Sequence[int]) -> tuple[LayerPlan, ...]:
    """The plan of every layer, that of a spectrum in several places made once."""
    wanted = [
        (path, spectrum, rank)
        for (path, spectrum), rank in zip(spectra.items(), ranks, strict=True)
    ]
    first = {(id(spectrum), rank): (path, spectrum, rank) for path, spectrum, rank in wanted}
    made = in_threads(lambda one: one[1].planned(one[0], one[2]), first.values())
    plans = dict(zip(first, made, strict=True))
    return tuple(replace(plans[id(spectrum), rank], path=path) for path, spectrum, rank in wanted)


def _common_in_stacks(
    model: PyTree, layers: Mapping[KeyPath, AbstractSSM], ranks: Sequence[int]
) -> list[int]:
    """`ranks`, where the layers of a stack all have the largest of theirs."""
    stacks = stacks_of(model)
    largest = dict.fromkeys(stacks, 0)
    for keys, rank in zip(layers, ranks, strict=True):
        if keys[:-1] in largest:
            largest[keys[:-1]] = max(largest[keys[:-1]], rank)
    return [largest.get(keys[:-1], rank) for keys, rank in zip(layers, ranks, strict=True)]


def _filled(plan: Plan, model: PyTree) -> Plan:
    """`plan`, where the layers of a stack keep one number of states.

    A cut may end a few states below its rank (`balanced_truncation`); idle states then fill it up
    to the largest one.
    """
    rows = list(plan.layers)
    for keys, size in stacks_of(model).items():
        paths = [path_name((*keys, jax.tree_util.SequenceKey(k))) for k in range(size)]
        places = [k for k, row in enumerate(rows) if row.path in paths]
        rank = max(rows[k].rank_after for k in places)
        for k in places:
            rows[k] = _filled_row(rows[k], rank)
    return Plan(tuple(rows))


def _filled_row(row: LayerPlan, rank: int) -> LayerPlan:
    if row.cut is None or row.rank_after == rank:
        return row
    return LayerPlan(**{**vars(row), "rank_after": rank, "cut": row.cut.filled(rank)})


def _cuts(layers: Mapping[KeyPath, AbstractSSM], plan: Plan) -> dict[KeyPath, AbstractCut]:
    rows = zip(layers, plan.layers, strict=True)
    return {keys: row.cut for keys, row in rows if row.cut is not None}


def _replaced(
    model: PyTree, flat: PyTree, layers: Mapping[KeyPath, AbstractSSM], plan: Plan
) -> PyTree:
    """`model`, of which `flat` has its stacks apart, with its layers cut as planned."""
    cuts = _cuts(layers, plan)
    if not cuts:
        return model
    return restacked(replace_layers(flat, {keys: cut.after for keys, cut in cuts.items()}), model)


def _check_plan(plan: Plan, layers: Mapping[KeyPath, AbstractSSM]) -> None:
    planned = {row.path: row.rank_before for row in plan.layers}
    actual = {path_name(keys): layer.d_state for keys, layer in layers.items()}
    if planned != actual:
        raise ValueError(f"`plan` must be for layers of states {actual}, got {planned}")
    for row, layer in zip(plan.layers, layers.values(), strict=True):
        if row.cut is not None and not _same(row.cut.before, layer):
            raise ValueError(
                f"`plan` must be for these parameters of {row.path or 'the layer'}, got others"
            )


def _same(a: AbstractSSM, b: AbstractSSM) -> bool:
    if a is b:
        return True
    x, y = jax.tree.leaves(a), jax.tree.leaves(b)
    same = jax.tree.structure(a) == jax.tree.structure(b)
    # not eqx.tree_equal, which compiles a program for each new shape
    return same and all(map(np.array_equal, x, y))
