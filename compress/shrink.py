"""Plan a shrink of a model's layers, and carry it out on the model and its optimizer state."""

import inspect
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, SupportsIndex

import jax
import numpy as np
from beartype import beartype
from jaxtyping import Array, Float, Int, PyTree, jaxtyped

from zoo import AbstractMambaSSM, AbstractSSM

from . import policies
from .cut import AbstractCut
from .linear.hankel import Form
from .linear.selection import Selection
from .linear.spectrum import Evidence, LayerPlan, Spectrum
from .model.layers import (
    KeyPath,
    check_parameters,
    check_single,
    layers_of,
    path_name,
    replace_layers,
)
from .model.record import record
from .numerics.threads import one_blas_thread
from .optimizer.carry import MODES, carry
from .policies import Budget, JointPolicy, Policy
from .selective.spectrum import SelectiveSpectrum
from .table import Table

Ranks = SupportsIndex | Sequence[SupportsIndex] | Mapping[str, SupportsIndex]
Inputs = Sequence[Any] | Mapping[str, Any]
Lengths = Int[Array | np.ndarray, " b"]

DEFAULT_TOLERANCE = 0.01


@dataclass(frozen=True)
class Plan(Table):
    """What a shrink does to a model, layer by layer, in the order of the model's leaves.

    Prints as a table. Errors are gains from a layer's input to its output (H-infinity norms).
    """

    layers: tuple[LayerPlan, ...]

    @property
    def ranks(self) -> dict[str, int]:
        """States after the shrink by path, as `compress(ranks=...)` takes them."""
        return {layer.path: layer.rank_after for layer in self.layers}

    def header(self) -> list[str]:
        return ["layer", "states", "after", "sigma_1", "error >=", "error <=", "from"]

    def rows(self) -> list[list[str]]:
        rows = [
            [
                layer.path or "(model)",
                f"{layer.rank_before}",
                f"{layer.rank_after}",
                f"{layer.sigma[0]:.3g}",
                f"{layer.floor:.3g}",
                f"{layer.bound:.3g}",
                layer.gramians,
            ]
            for layer in self.layers
        ]
        before = sum(layer.rank_before for layer in self.layers)
        after = sum(layer.rank_after for layer in self.layers)
        return [*rows, ["total", f"{before}", f"{after}", "", "", "", ""]]


@one_blas_thread()
@jaxtyped(typechecker=beartype)
def plan(
    model: PyTree,
    *,
    tolerance: float | int | None = None,
    policy: Policy | JointPolicy | None = None,
    ranks: Ranks | None = None,
    gate: float | int = 0.95,
    form: Form = "real",
    batch: Any = None,
    inputs: Inputs | None = None,
    gradients: Inputs | bool = True,
    lengths: Lengths | None = None,
    states: bool = True,
    horizon: int | None = None,
    refit: bool | None = None,
    optimal: bool = False,
    select: Selection | None = None,
) -> Plan:
    """What `compress` would do to the `AbstractSSM` layers of `model`, any pytree that holds some.

    At most one of these says how many states stay (none of them: `tolerance=0.01`):

    - `tolerance`: the share of sum(sigma) that may be dropped, in [0, 1);
    - `policy`: from sigma to a rank, or to those of all layers at once (`compress.policies`);
    - `ranks`: one rank for all layers, a list in the order of the layers, or a mapping from paths;
      layers that the mapping leaves out stay as they are.

    The first two never cut inside a tie (`rank.keep_ties`), and leave a layer as it is unless its
    rank falls under `gate` times the old one (the paper's 95 %). What `tolerance` and
    `rank.error_budget` allow to be dropped holds also where real modes need a state for each value
    (`compress.policies`); other policies' ranks may then drop more. `ranks` are taken as they are.

    At most one of these says by what the states are weighed (none of them: white noise):

    - `batch`: data that the model is run on, sequences along the first axis. The covariance of
      each layer's states replaces its controllability Gramian, and that of the gradients that come
      back to the states from the model's result its observability Gramian (`output_gradients`;
      `gradients=False` leaves this one as it is). `model` is then a layer, a function of one
      sequence, or a pair of a `zoo.Classifier` and its state;
    - `inputs`: the same for any other model, with the layers' inputs [b L d_model] as a list in the
      order of the layers or a mapping from paths (`layer_inputs` records them), and with
      `gradients` of the same form, if they are to count;
    - `horizon`: both Gramians are summed over this many samples only.

    Of padded sequences, `lengths` [b] says how many samples of each array [b L d_model] are no
    padding, which comes after them; it then weighs nothing.

    `form` is that of `balanced_truncation`: "real" reduces the real map y = Re(C x), and `sigma`
    come in sums of two; "complex" the complex system, as the paper does. The three above always
    reduce the real map. They have no error bounds, and where the result would be unstable, or all
    sigma are zero (as with the gradients behind a head that starts at zero), the layer falls
    back to white noise; the plan says so. With data, `refit` fits C and D to the
    layer's own outputs after the cut, by least squares. It does most for cuts by white noise:
    `states=False` leaves the controllability Gramian as it is, and with `gradients=False` too, the
    data serve to refit alone and `form` holds.

    Selective layers (Mamba) are weighed by data only, so `batch` or `inputs` must be given where
    there are any. All channels of such a layer are cut to one shared basis, which is folded into
    its parameters (`compress.selective.spectrum`); there too are no error bounds, and no cut by
    a policy where all sigma are zero. What makes C is fitted as above, unless `refit=False`.

    `optimal=True`, for form="real" and white noise, goes on from the truncated system to the one
    nearest to the layer in the H2 norm (`compress.linear.h2`), which has no error bound.

    `select` (`compress.linear.selection`) keeps other balanced states of the complex system than
    the leading ones, for form="complex" and white noise: an ablation.

    ValueError if the model has no such layer, if a layer holds NaN or infinity, is not stable or
    is a stack made by vmap, and for arguments out of range, with the name of each.
    """
    _at_most_one(tolerance=tolerance, policy=policy, ranks=ranks)
    _at_most_one(batch=batch, inputs=inputs, horizon=horizon)
    layers = _checked_layers(model)
    _check_optimal(optimal, form, batch, inputs, horizon)
    evidence = _evidence(
        model, layers, batch, inputs, gradients, lengths, states, horizon, refit, optimal
    )
    if select is not None and (form != "complex" or batch is not None or inputs is not None):
        raise ValueError("select is given, allowed: with form='complex' and white noise alone")
    spectra = _spectra(layers, form, evidence, select)
    return _plan(model, layers, spectra, tolerance, policy, ranks, gate)


@one_blas_thread()
@jaxtyped(typechecker=beartype)
def compress(
    model: PyTree,
    opt_state: PyTree = None,
    *,
    tolerance: float | int | None = None,
    plan: Plan | None = None,
    ranks: Ranks | None = None,
    policy: Policy | JointPolicy | None = None,
    gate: float | int = 0.95,
    form: Form = "real",
    batch: Any = None,
    inputs: Inputs | None = None,
    gradients: Inputs | bool = True,
    lengths: Lengths | None = None,
    states: bool = True,
    horizon: int | None = None,
    refit: bool | None = None,
    optimal: bool = False,
    moments: str = "transport",
) -> tuple[PyTree, PyTree]:
    """`model` with smaller `AbstractSSM` layers, and `opt_state` carried over to it.

    `model` is any pytree that holds such layers; `opt_state` any optax state of it, or None.
    At most one of `tolerance`, `policy`, `ranks` (see `plan`) and `plan` says how many states
    stay; none of them means `tolerance=0.01`. `form`, `batch`, `inputs`, `gradients`, `lengths`,
    `states`, `horizon`, `refit` and `optimal` are those of `plan`; without any it is white noise,
    and the output of a layer then differs by at most 2 * sum(dropped sigma) * ||input||. Computed
    in double precision; classes, dtypes and settings stay, so a jitted training step is traced
    again once. What is not cut is returned as the same object: model and state themselves if
    nothing is. A layer object that stands in two places is cut alike in both where it is weighed
    alike and is to have one rank; by data each place has its own inputs, and becomes a layer of its
    own. Another version of the model, an average of it say, follows the model's cut where it stands
    in the state, as in `compress(model, (opt_state, average))`; inside `model` it is cut by itself.

    `moments` says what becomes of the optimizer's moments of a layer that is cut:

    - "transport": carried into the new coordinates, where they mean what they meant
      (`compress.optimizer.carry`);
    - "reset": zero;
    - "slice": the first entries of the old ones, as the public reference implementation does it.

    ValueError as for `plan`, for a plan of another model, for a plan beside what it was made with
    (`gate`, `form` and what states are weighed by), and for a state of another model.

    Source: Chahine, Nazari, Rus, Rusch, CompreSSM, ICLR 2026, arXiv 2510.02823.
    """
    _at_most_one(tolerance=tolerance, plan=plan, ranks=ranks, policy=policy)
    _at_most_one(plan=plan, batch=batch, inputs=inputs, horizon=horizon)
    if plan is not None:
        given = {"gradients": gradients, "lengths": lengths, "states": states, "refit": refit}
        _none_given(gate=gate, form=form, optimal=optimal, **given)
    if moments not in MODES:
        raise ValueError(f"moments={moments!r}, allowed: {', '.join(MODES)}")
    layers = _checked_layers(model)
    if plan is None:
        _check_optimal(optimal, form, batch, inputs, horizon)
        evidence = _evidence(
            model, layers, batch, inputs, gradients, lengths, states, horizon, refit, optimal
        )
        spectra = _spectra(layers, form, evidence)
        plan = _plan(model, layers, spectra, tolerance, policy, ranks, gate)
    else:
        _check_plan(plan, layers)
    cuts = _cuts(layers, plan)
    if not cuts:
        return model, opt_state
    new_state = carry(opt_state, layers, cuts, moments)
    return _replaced(model, layers, plan), new_state


def _at_most_one(**given: Any) -> None:
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} are given, allowed: one of {', '.join(given)}")


def _check_optimal(optimal: bool, form: Form, batch: Any, inputs: Any, horizon: Any) -> None:
    if optimal and form != "real":
        raise ValueError(f"optimal=True with form={form!r}, allowed: with form='real'")
    if optimal and not (batch is None and inputs is None and horizon is None):
        raise ValueError("optimal=True with data or a horizon, allowed: with white noise alone")


def _none_given(**values: Any) -> None:
    default = inspect.signature(plan).parameters
    names = [name for name, value in values.items() if value != default[name].default]
    if names:
        raise ValueError(
            f"{' and '.join(names)} given beside plan, allowed: in the call of `plan` that makes it"
        )


def _checked_layers(model: PyTree) -> dict[KeyPath, AbstractSSM]:
    layers = dict(layers_of(model))
    if not layers:
        raise ValueError(f"model holds no AbstractSSM layer (it is a {type(model).__name__})")
    for keys, layer in layers.items():
        check_single(keys, layer)
        check_parameters(keys, layer)
    return layers


def _evidence(
    model: PyTree,
    layers: Mapping[KeyPath, AbstractSSM],
    batch: Any,
    inputs: Inputs | None,
    gradients: Inputs | bool,
    lengths: Lengths | None,
    states: bool,
    horizon: int | None,
    refit: bool | None,
    optimal: bool,
) -> dict[KeyPath, Evidence]:
    """What the states of each layer are weighed by."""
    if batch is not None:
        if not isinstance(gradients, bool):
            raise ValueError("gradients are given with batch, allowed: True or False")
        inputs, recorded = record(model, batch, gradients=gradients)
        gradients = recorded if gradients else False
    if inputs is None:
        if refit:
            raise ValueError("refit=True needs data, allowed: with batch or inputs")
        if not isinstance(gradients, bool):
            raise ValueError("gradients are given without inputs, allowed: with inputs")
        if not states:
            raise ValueError("states=False needs data, allowed: with batch or inputs")
        if lengths is not None:
            raise ValueError("lengths are given without data, allowed: with batch or inputs")
        return dict.fromkeys(layers, Evidence(horizon=horizon, optimal=optimal))
    by_layer = _by_layer("inputs", inputs, layers)
    none: dict[KeyPath, Any] = dict.fromkeys(layers)
    weights = none if isinstance(gradients, bool) else _by_layer("gradients", gradients, layers)
    if lengths is not None:
        for keys, u in by_layer.items():
            _check_lengths(lengths, np.shape(u), path_name(keys))
    return {
        keys: Evidence(u, weights[keys], lengths, states=states, refit=refit)
        for keys, u in by_layer.items()
    }


def _check_lengths(lengths: Lengths, shape: tuple[int, ...], path: str) -> None:
    b, L = shape[:2]
    if len(lengths) != b or np.min(lengths) < 1 or np.max(lengths) > L:
        raise ValueError(
            f"lengths: {len(lengths)} from {np.min(lengths)} to {np.max(lengths)}, allowed for "
            f"{path or 'the layer'}: {b}, one for a sequence, from 1 to {L}"
        )


def _by_layer(
    what: str, given: Inputs, layers: Mapping[KeyPath, AbstractSSM]
) -> dict[KeyPath, Any]:
    """`given`, one array [b L d_model] for each layer, checked."""
    names = {path_name(keys): keys for keys in layers}
    if not isinstance(given, Mapping):
        if len(given) != len(names):
            raise ValueError(f"{what} has {len(given)} entries, but there are {len(names)} layers")
        given = dict(zip(names, given, strict=True))
    if given.keys() != names.keys():
        raise ValueError(f"{what} are for {sorted(given)}, the layers are {', '.join(names)}")
    for path, u in given.items():
        d_model = layers[names[path]].d_model
        if np.ndim(u) != 3 or np.shape(u)[2] != d_model or 0 in np.shape(u):
            raise ValueError(
                f"{what} for {path or 'the layer'} have shape {np.shape(u)}, "
                f"allowed: (sequences, samples, {d_model})"
            )
        if not np.all(np.isfinite(u)):
            raise ValueError(f"{what} for {path or 'the layer'} hold NaN or infinity")
    return {keys: given[path] for path, keys in names.items()}


def _spectra(
    layers: Mapping[KeyPath, AbstractSSM],
    form: Form,
    evidence: Mapping[KeyPath, Evidence],
    select: Selection | None = None,
) -> dict[KeyPath, Spectrum | SelectiveSpectrum]:
    """The layers' spectra; one for a layer that is in two places and weighed by the same."""
    kinds = {
        keys: (id(layer), id(evidence[keys].inputs), id(evidence[keys].gradients))
        for keys, layer in layers.items()
    }
    first: dict[tuple[int, ...], KeyPath] = {}
    for keys, kind in kinds.items():
        first.setdefault(kind, keys)

    def made(keys: KeyPath) -> Spectrum | SelectiveSpectrum:
        layer, by = layers[keys], evidence[keys]
        name = path_name(keys) or type(layer).__name__
        if isinstance(layer, AbstractMambaSSM):
            return SelectiveSpectrum(name, layer, by)
        return Spectrum(name, layer, form, by, select)

    with ThreadPoolExecutor(os.cpu_count()) as each:
        spectra = dict(zip(first, each.map(made, first.values()), strict=True))
    return {keys: spectra[kind] for keys, kind in kinds.items()}


def _plan(
    model: PyTree,
    layers: Mapping[KeyPath, AbstractSSM],
    spectra: Mapping[KeyPath, Spectrum | SelectiveSpectrum],
    tolerance: float | int | None,
    policy: Policy | JointPolicy | None,
    ranks: Ranks | None,
    gate: float | int,
) -> Plan:
    policies.gated(1, 1, gate)
    if ranks is not None:
        after = _explicit(ranks, layers)
        return Plan(tuple(spectra[keys].planned(path_name(keys), after[keys]) for keys in layers))
    if policy is None:
        policy = policies.tolerance(DEFAULT_TOLERANCE if tolerance is None else tolerance)

    def planned(wanted: Iterable[Any]) -> Plan:
        rows = []
        for keys, each in zip(layers, wanted, strict=True):
            spectrum = spectra[keys]
            sigma = spectrum.sigma
            rank = _untied(sigma, _index("policy", each))
            if isinstance(policy, Budget):
                rank = spectrum.enough(rank, policy.allowed(sigma))
                rank = policy.rounded(rank, len(sigma))
            rank = policies.gated(rank, len(sigma), gate)
            if isinstance(spectrum, SelectiveSpectrum) and sigma[0] == 0:
                rank = len(sigma)  # nothing is known of its states
            rows.append(spectrum.planned(path_name(keys), rank))
        return Plan(tuple(rows))

    sigmas = [spectra[keys].sigma for keys in layers]
    if isinstance(policy, JointPolicy):
        return planned(
            policy.ranks(sigmas, lambda wanted: _replaced(model, layers, planned(wanted)))
        )
    return planned([policy(sigma) for sigma in sigmas])


def _untied(sigma: Float[np.ndarray, " n"], rank: int) -> int:
    return policies.keep_ties(lambda _: rank)(sigma)


def _index(name: str, rank: Any) -> int:
    try:
        return operator.index(rank)
    except TypeError:
        raise ValueError(f"{name}: {rank!r}, allowed: whole numbers, one for a layer") from None


def _cuts(layers: Mapping[KeyPath, AbstractSSM], plan: Plan) -> dict[KeyPath, AbstractCut]:
    rows = zip(layers, plan.layers, strict=True)
    return {keys: row.cut for keys, row in rows if row.cut is not None}


def _replaced(model: PyTree, layers: Mapping[KeyPath, AbstractSSM], plan: Plan) -> PyTree:
    cuts = _cuts(layers, plan)
    return replace_layers(model, {keys: cut.after for keys, cut in cuts.items()}) if cuts else model


def _explicit(ranks: Ranks, layers: Mapping[KeyPath, AbstractSSM]) -> dict[KeyPath, int]:
    """The wanted rank of every layer; a ValueError names what does not fit."""
    names = {path_name(keys): keys for keys in layers}
    if isinstance(ranks, Mapping):
        unknown = [path for path in ranks if path not in names]
        if unknown:
            raise ValueError(f"ranks: no layer {unknown[0]!r}, the layers are {', '.join(names)}")
        wanted = dict(ranks)
    elif isinstance(ranks, Sequence):
        if len(ranks) != len(names):
            raise ValueError(f"ranks has {len(ranks)} entries, but there are {len(names)} layers")
        wanted = dict(zip(names, ranks, strict=True))
    else:
        wanted = dict.fromkeys(names, ranks)
    wanted = {path: _index("ranks", rank) for path, rank in wanted.items()}
    for path, rank in wanted.items():
        n = layers[names[path]].d_state
        if not 1 <= rank <= n:
            where = f" for {path}" if path else ""
            raise ValueError(f"ranks: {rank}{where}, allowed: 1 to {n}, its d_state")
    return {keys: wanted.get(path, layers[keys].d_state) for path, keys in names.items()}


def _check_plan(plan: Plan, layers: Mapping[KeyPath, AbstractSSM]) -> None:
    planned = {row.path: row.rank_before for row in plan.layers}
    actual = {path_name(keys): layer.d_state for keys, layer in layers.items()}
    if planned != actual:
        raise ValueError(f"plan is for layers of states {planned}, but the model has {actual}")
    for row, layer in zip(plan.layers, layers.values(), strict=True):
        if row.cut is not None and not _same(row.cut.before, layer):
            raise ValueError(f"plan was made for other parameters of {row.path or 'the layer'}")


def _same(a: AbstractSSM, b: AbstractSSM) -> bool:
    if a is b:
        return True
    x, y = jax.tree.leaves(a), jax.tree.leaves(b)
    same = jax.tree.structure(a) == jax.tree.structure(b)
    # not eqx.tree_equal, which compiles a program for each new shape
    return same and all(map(np.array_equal, x, y))
