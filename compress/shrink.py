"""Plan a shrink of a model's layers, and carry it out on the model and its optimizer state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from beartype import beartype
from jaxtyping import Float, PyTree, jaxtyped

from zoo import AbstractSSM, DiagonalLTI

from . import rank as policies
from .balance import balanced_truncation, check_system
from .hankel import error_bound, hankel_singular_values
from .layers import KeyPath, check_parameters, layers_of, path_name, replace_layers
from .moments import MODES, Cut, carry
from .precision import double_lti, from_double_lti
from .rank import Policy

Ranks = int | Sequence[int] | Mapping[str, int]

DEFAULT_TOLERANCE = 0.01


@dataclass(frozen=True)
class LayerPlan:
    """What a shrink does to one layer."""

    path: str
    """Where the layer is in the model, as one would write it: `blocks[0].ssm`."""
    sigma: Float[np.ndarray, " n"]
    """Hankel singular values, descending."""
    rank_before: int
    """States now."""
    rank_after: int
    """States after the shrink, or fewer where fewer reproduce the layer."""

    @property
    def bound(self) -> float:
        """The gain of the error is at most this, 2 * sum(sigma[rank_after:])."""
        return float(error_bound(self.sigma, self.rank_after))

    @property
    def floor(self) -> float:
        """No system of `rank_after` states has an error of less gain, sigma[rank_after]."""
        return float(self.sigma[self.rank_after]) if self.rank_after < len(self.sigma) else 0.0


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
            ]
            for layer in self.layers
        ]
        before = sum(layer.rank_before for layer in self.layers)
        after = sum(layer.rank_after for layer in self.layers)
        return [*rows, ["total", f"{before}", f"{after}", "", "", ""]]


HEADER = ["layer", "states", "after", "sigma_1", "error >=", "error <="]


@jaxtyped(typechecker=beartype)
def plan(
    model: PyTree,
    *,
    tolerance: float | int | None = None,
    policy: Policy | None = None,
    ranks: Ranks | None = None,
    gate: float | int = 0.95,
) -> Plan:
    """What `compress` would do to the `AbstractSSM` layers of `model`, any pytree that holds some.

    At most one of these says how many states stay (none of them: `tolerance=0.01`):

    - `tolerance`: the share of sum(sigma) that may be dropped, in [0, 1);
    - `policy`: a function from sigma to a rank, see `compress.rank`;
    - `ranks`: one rank for all layers, a list in the order of the layers, or a mapping from paths;
      layers that the mapping leaves out stay as they are.

    The first two never cut inside a tie (`rank.keep_ties`), and leave a layer as it is unless its
    rank falls under `gate` times the old one (the paper's 95 %). `ranks` are taken as they are.

    ValueError if the model has no such layer, if a layer holds NaN or infinity or is not stable,
    and for arguments out of range, with the name of each.
    """
    _at_most_one(tolerance=tolerance, policy=policy, ranks=ranks)
    layers = _checked_layers(model)
    return _plan(layers, _systems(layers), tolerance, policy, ranks, gate)


@jaxtyped(typechecker=beartype)
def compress(
    model: PyTree,
    opt_state: PyTree = None,
    *,
    tolerance: float | int | None = None,
    plan: Plan | None = None,
    ranks: Ranks | None = None,
    policy: Policy | None = None,
    gate: float | int = 0.95,
    moments: str = "transport",
) -> tuple[PyTree, PyTree]:
    """`model` with smaller `AbstractSSM` layers, and `opt_state` carried over to it.

    `model` is any pytree that holds such layers; `opt_state` any optax state of it, or None.
    At most one of `tolerance`, `policy`, `ranks` (see `plan`) and `plan` says how many states
    stay; none of them means `tolerance=0.01`. Each layer is replaced by its balanced truncation,
    whose output differs by at most 2 * sum(dropped sigma) * ||input||. Computed in double
    precision; classes, dtypes and settings stay, so a jitted training step is traced again once.
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
    layers = _checked_layers(model)
    systems = _systems(layers)
    if plan is None:
        plan = _plan(layers, systems, tolerance, policy, ranks, gate)
    else:
        _check_plan(plan, layers)
    if moments not in MODES:
        raise ValueError(f"moments={moments!r}, allowed: {', '.join(MODES)}")
    cuts = _cuts(plan, layers, systems)
    if not cuts:
        return model, opt_state
    new_state = carry(opt_state, layers, cuts, moments)
    return replace_layers(model, {keys: cut.after for keys, cut in cuts.items()}), new_state


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


def _systems(layers: Mapping[KeyPath, AbstractSSM]) -> dict[int, DiagonalLTI]:
    """The layers' systems in double precision, by the identity of the layer; checked."""
    systems = {}
    for keys, layer in layers.items():
        if id(layer) not in systems:
            systems[id(layer)] = lti = double_lti(layer)
            check_system(lti, path_name(keys) or type(layer).__name__)
    return systems


def _plan(
    layers: Mapping[KeyPath, AbstractSSM],
    systems: Mapping[int, DiagonalLTI],
    tolerance: float | int | None,
    policy: Policy | None,
    ranks: Ranks | None,
    gate: float | int,
) -> Plan:
    policies.gated(1, 1, gate)
    if ranks is not None:
        after = _explicit(ranks, layers)
        return Plan(
            tuple(
                LayerPlan(path_name(keys), _sigma(systems[id(layer)]), layer.d_state, after[keys])
                for keys, layer in layers.items()
            )
        )
    if policy is None:
        policy = policies.tolerance(DEFAULT_TOLERANCE if tolerance is None else tolerance)
    policy = policies.keep_ties(policy)
    rows = []
    for keys, layer in layers.items():
        sigma = _sigma(systems[id(layer)])
        rank = policies.gated(policy(sigma), layer.d_state, gate)
        rows.append(LayerPlan(path_name(keys), sigma, layer.d_state, rank))
    return Plan(tuple(rows))


def _sigma(lti: DiagonalLTI) -> Float[np.ndarray, " n"]:
    return np.asarray(hankel_singular_values(lti), np.float64)


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


def _cuts(
    plan: Plan,
    layers: Mapping[KeyPath, AbstractSSM],
    systems: Mapping[int, DiagonalLTI],
) -> dict[KeyPath, Cut]:
    """The layers that get smaller, each before and after; equal cuts of one object made once."""
    made: dict[tuple[int, int], Cut | None] = {}
    cuts = {}
    for (keys, layer), row in zip(layers.items(), plan.layers, strict=True):
        if row.rank_after >= layer.d_state:
            continue
        which = (id(layer), row.rank_after)
        if which not in made:
            made[which] = _cut(layer, systems[id(layer)], row.rank_after)
        cuts[keys] = made[which]
    return {keys: cut for keys, cut in cuts.items() if cut is not None}


def _cut(layer: AbstractSSM, lti: DiagonalLTI, rank: int) -> Cut | None:
    reduced = balanced_truncation(lti, rank)
    if reduced.rank >= layer.d_state:
        return None
    after = from_double_lti(layer, reduced.lti)
    check_parameters((), after)
    return Cut(layer, after, lti, np.asarray(reduced.V), np.asarray(reduced.W))
