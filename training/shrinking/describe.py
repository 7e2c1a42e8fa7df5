"""The log's entries on layers with computed Hankel singular values, or with a cut."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from compress import LayerPlan, Plan


def describe_cut(
    planned: Plan, sizes: Sequence[int], certificates: Sequence[Mapping[str, float | bool | None]]
) -> list[dict[str, Any]]:
    """The entries of the "shrink" event on the layers; `sizes` are those after it.

    `certificates` are those of `Reduction.certificates`.
    """
    return [
        {
            "path": layer.path,
            "before": layer.rank_before,
            "after": size,
            "sigma": layer.sigma,
            "gramians": layer.gramians,
            "bounded": math.isfinite(layer.bound),
            **certificate,
        }
        for layer, size, certificate in zip(planned.layers, sizes, certificates, strict=True)
    ]


def describe_spectra(layers: Sequence[LayerPlan]) -> list[dict[str, Any]]:
    """The entries of the "spectrum" event on the layers."""
    return [
        {
            "path": layer.path,
            "d_state": layer.rank_before,
            "sigma": layer.sigma,
            "gramians": layer.gramians,
        }
        for layer in layers
    ]
