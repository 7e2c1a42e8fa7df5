"""The family of linear time-invariant layers."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy

from zoo import AbstractSSM, DiagonalLTI
from zoo.layers.base import as_linear
from zoo.layers.both_ways import reversing

from ..families import Family
from ..model.record import LayerData
from .bank import BankSpectrum, double_bank
from .hankel import Form
from .spectrum import LinearSpectrum
from .system import double_lti
from .weighing import Weighing, on_data, one_basis


def _on_data(
    name: str,
    layer: AbstractSSM,
    data: LayerData,
    *,
    states: bool,
    refit: bool | None,
    form: Form,
    maps: bool | None,
) -> LinearSpectrum:
    weighing = on_data(data, states=states, fitted=bool(refit), form=form)
    return _weighed(name, layer, weighing)


def _weighed(name: str, layer: AbstractSSM, weighing: Weighing) -> LinearSpectrum:
    """The layer's spectrum.

    Without any decay there are no Gramians of white noise as a fallback, but any orthonormal basis
    keeps such a layer stable.
    """
    if as_linear(layer).keeps_forever:
        if weighing.is_white:
            raise ValueError(
                f"`method` must be Data(...) or Horizon(...) for {name}, a {type(layer).__name__} "
                f"with states that never decay, got {weighing.words}"
            )
        weighing = replace(weighing, instead=one_basis(weighing))
    return LinearSpectrum(name, layer, weighing)


def _system(layer: AbstractSSM, data: Any) -> DiagonalLTI:
    return double_lti(layer)


LINEAR = Family(
    on_data=_on_data, needs_data=False, has_bound=True, system=_system, weighed=_weighed
)


def _both_ways_on_data(
    name: str,
    layer: AbstractSSM,
    data: LayerData,
    *,
    states: bool,
    refit: bool | None,
    form: Form,
    maps: bool | None,
) -> LinearSpectrum:
    if refit:
        raise ValueError(
            f"`refit` must be None or False for {name}, which reads both ways, got True"
        )
    given = _as_read(data)
    return _on_data(name, layer, given, states=states, refit=False, form=form, maps=maps)


def _as_read(data: LayerData) -> LayerData:
    """The inputs of the system of a layer that reads both ways: every sequence, and its reverse.
    The gradients by its 2 H outputs are those by the layer's outputs in the half that produces
    them, and zero in the other half.
    """
    turned = [
        reversing(np.shape(data.inputs)[1], None if data.lengths is None else int(length))
        for length in (data.lengths if data.lengths is not None else range(len(data.inputs)))
    ]

    def backwards(x: Any) -> Any:
        return jnp.stack([row[at] for row, at in zip(jnp.asarray(x), turned, strict=True)])

    g = data.gradients
    if g is not None:
        zero = jnp.zeros_like(jnp.asarray(g))
        halves = [jnp.concatenate([g, zero], -1), jnp.concatenate([zero, backwards(g)], -1)]
        g = np.asarray(jnp.concatenate(halves))
    return LayerData(
        inputs=np.concatenate([np.asarray(data.inputs), np.asarray(backwards(data.inputs))]),
        gradients=g,
        lengths=None if data.lengths is None else np.tile(np.asarray(data.lengths), 2),
    )


BOTH_WAYS = Family(
    on_data=_both_ways_on_data,
    needs_data=False,
    has_bound=False,
    system=_system,
    weighed=_weighed,
)


def _bank_on_data(
    name: str,
    layer: AbstractSSM,
    data: LayerData,
    *,
    states: bool,
    refit: bool | None,
    form: Form,
    maps: bool | None,
) -> BankSpectrum:
    u, g = np.asarray(data.inputs), data.gradients

    def weighing(h: int) -> Weighing:
        own = LayerData(
            u[..., h : h + 1], None if g is None else np.asarray(g)[..., h : h + 1], data.lengths
        )
        return on_data(own, states=states, fitted=bool(refit), form=form)

    return BankSpectrum(name, layer, weighing)


def _bank_weighed(name: str, layer: AbstractSSM, weighing: Weighing) -> BankSpectrum:
    return BankSpectrum(name, layer, lambda h: weighing)


def _bank_system(layer: AbstractSSM, data: Any) -> DiagonalLTI:
    """One block-diagonal system of all channels."""
    systems = double_bank(layer)
    return DiagonalLTI(
        log_lam=np.concatenate([lti.log_lam for lti in systems]),
        B=np.asarray(scipy.linalg.block_diag(*(lti.B for lti in systems))),
        C=np.asarray(scipy.linalg.block_diag(*(lti.C for lti in systems))),
        D=np.concatenate([lti.D for lti in systems]),
    )


BANK = Family(
    on_data=_bank_on_data,
    needs_data=False,
    has_bound=True,
    system=_bank_system,
    weighed=_bank_weighed,
    is_one_system=False,
)
