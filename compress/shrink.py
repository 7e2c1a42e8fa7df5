"""Plan a shrink of a model's layers, and carry it out on the model and its optimizer state."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import equinox as eqx
import numpy as np
import scipy.linalg
from beartype import beartype
from jaxtyping import Float, PyTree, jaxtyped

from zoo import AbstractSSM

from . import rank as policies
from .balance import Truncation, gramian_factors, truncate
from .empirical import data_factor, horizon_factors, layer_inputs
from .hankel import Form, check_system, hankel_matrix
from .layers import KeyPath, check_parameters, layers_of, path_name, replace_layers
from .lift import Projection
from .moments import MODES, Cut, carry
from .precision import double_lti, from_double_lti
from .rank import JointPolicy, Policy

Ranks = int | Sequence[int] | Mapping[str, int]
Inputs = Sequence[Any] | Mapping[str, Any]

DEFAULT_TOLERANCE = 0.01


@dataclass(frozen=True)
class LayerPlan:
    """What a shrink does to one layer."""

    path: str
    """Where the layer is in the model, as one would write it: `blocks[0].ssm`."""
    sigma: Float[np.ndarray, " n"]
    """Hankel singular values, descending; of the real map in sums of two, one for each state."""
    rank_before: int
    """States now."""
    rank_after: int
    """States after the shrink, or fewer where fewer reproduce the layer."""
    bound: float
    """The error's gain is at most this: 2 * (sum of the dropped HSVs); infinite if not known."""
    floor: float
    """No system of this size has an error of less gain: the first HSV dropped; 0 if not known."""
    gramians: str
    """What `sigma` and the cut are made from."""
    cut: Cut | None = field(default=None, repr=False, compare=False)
    """The cut itself, where it has been made for the plan."""


@dataclass(frozen=True)
class Plan:
    """What a shrink does to a model, layer by layer, in the order of the model's leaves.

    Prints as a table. Errors are gains from a layer's input to its output (H-infinity norms).
    """

    layers: tuple[LayerPlan, ...]

    @property
    def ranks(self) -> dict[str, int]:
        """States after the shrink by path, as `compress(ranks=...)` takes them."""
        return {layer.path: layer.rank_after for layer in self.layers}

    def __str__(self) -> str:
        rows = [HEADER, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )

    def __rich__(self) -> Any:
        from rich.table import Table  # takes 50 ms, and most plans are never shown

        table = Table()
        for k, title in enumerate(HEADER):
            table.add_column(title, justify="right" if k else "left")
        for row in self._rows():
            table.add_row(*row)
        return table

    def _rows(self) -> list[list[str]]:
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


HEADER = ["layer", "states", "after", "sigma_1", "error >=", "error <=", "from"]


@jaxtyped(typechecker=beartype)
def plan(
    model: PyTree,
    *,
    tolerance: float | int | None = None,
    policy: Policy | JointPolicy | None = None,
    ranks: Ranks | None = None,
    gate: float | int = 0.95,
    form: Form = "complex",
    batch: Any = None,
    inputs: Inputs | None = None,
    horizon: int | None = None,
) -> Plan:
    """What `compress` would do to the `AbstractSSM` layers of `model`, any pytree that holds some.

    At most one of these says how many states stay (none of them: `tolerance=0.01`):

    - `tolerance`: the share of sum(sigma) that may be dropped, in [0, 1);
    - `policy`: a function from sigma to a rank, or one for all layers at once (`compress.rank`);
    - `ranks`: one rank for all layers, a list in the order of the layers, or a mapping from paths;
      layers that the mapping leaves out stay as they are.

    The first two never cut inside a tie (`rank.keep_ties`), and leave a layer as it is unless its
    rank falls under `gate` times the old one (the paper's 95 %). `ranks` are taken as they are.

    At most one of these says by what the states are weighed (none of them: white noise):

    - `batch`: data that the model is run on, sequences along the first axis. The covariance of
      each layer's states replaces its controllability Gramian. `model` is then a layer, a function
      of one sequence, or a pair of a `zoo.model.Classifier` and its state;
    - `inputs`: the same for any other model, with the layers' inputs [b L d_model] as a list in the
      order of the layers or a mapping from paths (`layer_inputs` records them);
    - `horizon`: both Gramians are summed over this many samples only.

    `form` is that of `balanced_truncation`: "complex" reduces the complex system, as the paper
    does, "real" the real map y = Re(C x), whose `sigma` then come in sums of two. The three above
    always reduce the real map. They have no error bounds, and where the result would be unstable
    the layer falls back to white noise; the plan says so.

    ValueError if the model has no such layer, if a layer holds NaN or infinity or is not stable,
    and for arguments out of range, with the name of each.
    """
    _at_most_one(tolerance=tolerance, policy=policy, ranks=ranks)
    _at_most_one(batch=batch, inputs=inputs, horizon=horizon)
    layers = _checked_layers(model)
    spectra = _spectra(layers, form, _fed(model, layers, batch, inputs), horizon)
    return _plan(model, layers, spectra, tolerance, policy, ranks, gate)


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
    form: Form = "complex",
    batch: Any = None,
    inputs: Inputs | None = None,
    horizon: int | None = None,
    moments: str = "transport",
) -> tuple[PyTree, PyTree]:
    """`model` with smaller `AbstractSSM` layers, and `opt_state` carried over to it.

    `model` is any pytree that holds such layers; `opt_state` any optax state of it, or None.
    At most one of `tolerance`, `policy`, `ranks` (see `plan`) and `plan` says how many states
    stay; none of them means `tolerance=0.01`. `form`, `batch`, `inputs` and `horizon` are
    those of `plan`; without them it is white noise, and the output of a layer then
    differs by at most 2 * sum(dropped sigma) * ||input||. Computed in double precision; classes,
    dtypes and settings stay, so a jitted training step is traced again once.
    What is not cut is returned as the same object: model and state themselves if nothing is.
    A layer object that stands in two places is cut alike in both.

    `moments` says what becomes of the optimizer's moments of a layer that is cut:

    - "transport": carried into the new coordinates, where they mean what they meant
      (`compress.moments`);
    - "reset": zero;
    - "slice": the first entries of the old ones, as the public reference implementation does it.

    ValueError as for `plan`, for a plan of another model, and for a state of another model.

    Source: Chahine, Nazari, Rus, Rusch, CompreSSM, ICLR 2026, arXiv 2510.02823.
    """
    _at_most_one(tolerance=tolerance, plan=plan, ranks=ranks, policy=policy)
    _at_most_one(plan=plan, batch=batch, inputs=inputs, horizon=horizon)
    if moments not in MODES:
        raise ValueError(f"moments={moments!r}, allowed: {', '.join(MODES)}")
    layers = _checked_layers(model)
    if plan is None:
        spectra = _spectra(layers, form, _fed(model, layers, batch, inputs), horizon)
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


def _checked_layers(model: PyTree) -> dict[KeyPath, AbstractSSM]:
    layers = dict(layers_of(model))
    if not layers:
        raise ValueError(f"model holds no AbstractSSM layer (it is a {type(model).__name__})")
    for keys, layer in layers.items():
        check_parameters(keys, layer)
    return layers


def _fed(
    model: PyTree, layers: Mapping[KeyPath, AbstractSSM], batch: Any, inputs: Inputs | None
) -> dict[KeyPath, Any]:
    """The inputs of the layers, of none if there are no data."""
    if batch is not None:
        inputs = layer_inputs(model, batch)
    if inputs is None:
        return {}
    names = {path_name(keys): keys for keys in layers}
    if not isinstance(inputs, Mapping):
        if len(inputs) != len(names):
            raise ValueError(f"inputs has {len(inputs)} entries, but there are {len(names)} layers")
        inputs = dict(zip(names, inputs, strict=True))
    if inputs.keys() != names.keys():
        raise ValueError(f"inputs are for {sorted(inputs)}, the layers are {', '.join(names)}")
    for path, u in inputs.items():
        d_model = layers[names[path]].d_model
        if np.ndim(u) != 3 or np.shape(u)[2] != d_model or 0 in np.shape(u):
            raise ValueError(
                f"inputs for {path or 'the layer'} have shape {np.shape(u)}, "
                f"allowed: (sequences, samples, {d_model})"
            )
        if not np.all(np.isfinite(u)):
            raise ValueError(f"inputs for {path or 'the layer'} hold NaN or infinity")
    return {keys: inputs[path] for path, keys in names.items()}


class _Spectrum:
    """One layer's system in double precision, the factors it is weighed by, and its cuts."""

    def __init__(self, name: str, layer: AbstractSSM, form: Form, u: Any, horizon: int | None):
        self.layer = layer
        self._planned: dict[int, LayerPlan] = {}
        self.system = double_lti(layer)
        check_system(self.system, name)
        self.form: Form = form
        self.gramians = f"white noise, {form}"
        self.factors = gramian_factors(self.system, form)
        if u is not None:
            self.gramians = "data"
            self.factors = data_factor(self.system, u), self.factors[1]
        elif horizon is not None:
            self.gramians = f"{horizon} samples"
            self.factors = horizon_factors(self.system, horizon)
        self.sigma = self._sigma()

    def _sigma(self) -> Float[np.ndarray, " n"]:
        n = self.layer.d_state
        per_state = 1 if self.form == "complex" else 2
        sigma = np.zeros(n * per_state)
        values = np.asarray(scipy.linalg.svdvals(hankel_matrix(self.form, *self.factors)))
        values = values[: len(sigma)]
        sigma[: len(values)] = values
        return sigma.reshape(n, per_state).sum(axis=1)

    def planned(self, path: str, rank: int) -> LayerPlan:
        if rank not in self._planned:
            self._planned[rank] = self._plan(path, rank)
        return replace(self._planned[rank], path=path)

    def _plan(self, path: str, rank: int) -> LayerPlan:
        n, white = self.layer.d_state, self.gramians.startswith("white")
        sigma = self.sigma
        if rank >= n:
            return LayerPlan(path, sigma, n, n, 0.0, 0.0, self.gramians)
        reduced = truncate(self.system, *self.factors, rank, form=self.form)
        if not white and reduced.radius >= 1:
            instead = _Spectrum(path, self.layer, self.form, None, None).planned(path, rank)
            why = f"{self.gramians} would be unstable (radius {reduced.radius:.6f})"
            return replace(instead, gramians=f"{instead.gramians}: {why}")
        cut = None
        if reduced.rank < n:
            after = from_double_lti(self.layer, reduced.lti)
            check_parameters((), after)
            cut = Cut(self.layer, after, self.system, _projection(reduced))
        bound = reduced.bound if white else math.inf
        floor = _at(reduced.sigma, reduced.order) if white else 0.0
        return LayerPlan(path, sigma, n, reduced.rank, bound, floor, self.gramians, cut)


def _projection(reduced: Truncation) -> Projection:
    log_lam, V, W = np.asarray(reduced.lti.log_lam), reduced.V, reduced.W
    if not (np.any(reduced.V_conj) or np.any(reduced.W_conj)):
        return Projection(log_lam, V, W)
    return Projection(log_lam, V, W, reduced.V_conj, reduced.W_conj)


def _at(sigma: Float[np.ndarray, " k"], k: int) -> float:
    return float(sigma[k]) if k < len(sigma) else 0.0


def _spectra(
    layers: Mapping[KeyPath, AbstractSSM],
    form: Form,
    fed: Mapping[KeyPath, Any],
    horizon: int | None,
) -> dict[KeyPath, _Spectrum]:
    """The layers' spectra; one for a layer that is in two places and fed the same."""
    form = "real" if fed or horizon is not None else form
    made: dict[tuple[int, int], _Spectrum] = {}
    spectra = {}
    for keys, layer in layers.items():
        which = id(layer), id(fed.get(keys))
        if which not in made:
            name = path_name(keys) or type(layer).__name__
            made[which] = _Spectrum(name, layer, form, fed.get(keys), horizon)
        spectra[keys] = made[which]
    return spectra


def _plan(
    model: PyTree,
    layers: Mapping[KeyPath, AbstractSSM],
    spectra: Mapping[KeyPath, _Spectrum],
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

    def planned(wanted: Sequence[int]) -> Plan:
        rows = []
        for keys, rank in zip(layers, wanted, strict=True):
            sigma = spectra[keys].sigma
            rank = policies.gated(_untied(sigma, rank), len(sigma), gate)
            rows.append(spectra[keys].planned(path_name(keys), rank))
        return Plan(tuple(rows))

    sigmas = [spectra[keys].sigma for keys in layers]
    if isinstance(policy, JointPolicy):
        return planned(
            policy.ranks(sigmas, lambda wanted: _replaced(model, layers, planned(wanted)))
        )
    return planned([policy(sigma) for sigma in sigmas])


def _untied(sigma: Float[np.ndarray, " n"], rank: int) -> int:
    return policies.keep_ties(lambda _: rank)(sigma)


def _cuts(layers: Mapping[KeyPath, AbstractSSM], plan: Plan) -> dict[KeyPath, Cut]:
    rows = zip(layers, plan.layers, strict=True)
    return {keys: row.cut for keys, row in rows if row.cut is not None}


def _replaced(model: PyTree, layers: Mapping[KeyPath, AbstractSSM], plan: Plan) -> PyTree:
    cuts = _cuts(layers, plan)
    return replace_layers(model, {keys: cut.after for keys, cut in cuts.items()}) if cuts else model


def _explicit(ranks: Ranks, layers: Mapping[KeyPath, AbstractSSM]) -> dict[KeyPath, int]:
    """The wanted rank of every layer; a ValueError names what does not fit."""
    names = {path_name(keys): keys for keys in layers}
    if isinstance(ranks, int):
        wanted = dict.fromkeys(names, ranks)
    elif isinstance(ranks, Mapping):
        unknown = [path for path in ranks if path not in names]
        if unknown:
            raise ValueError(f"ranks: no layer {unknown[0]!r}, the layers are {', '.join(names)}")
        wanted = dict(ranks)
    else:
        if len(ranks) != len(names):
            raise ValueError(f"ranks has {len(ranks)} entries, but there are {len(names)} layers")
        wanted = dict(zip(names, ranks, strict=True))
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
    return a is b or bool(eqx.tree_equal(a, b))
