"""What the log says of layers whose Hankel singular values are computed, or that are cut."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from compress import LayerPlan, Plan


def describe_cut(
    planned: Plan, sizes: Sequence[int], certificates: Sequence[Mapping[str, float | bool | None]]
) -> list[dict[str, Any]]:
    """What the "shrink" event says of the layers, whose `sizes` are those after it.

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
    """What the "spectrum" event says of the layers."""
    return [
        {
            "path": layer.path,
            "d_state": layer.rank_before,
            "sigma": layer.sigma,
            "gramians": layer.gramians,
        }
        for layer in layers
    ]
