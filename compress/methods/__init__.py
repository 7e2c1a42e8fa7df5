"""Methods: frozen values that compute the spectrum of a layer.

    compress(model, opt_state, method=Data(batch=x))

`WhiteNoise` is balanced truncation, in its complex form the paper's method. `Data` measures the
states on data. `Horizon` takes Gramians over a finite time. `H2Optimal` searches the
nearest system from the truncated one. `SmallestValues` and `RandomValues` are ablations.

A method of your own derives from `AbstractMethod` and defines `spectrum`. A method with other
Gramians of a linear layer derives from `AbstractLinearMethod` and defines `weighing`.
"""

import abc
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from zoo import AbstractSSM
from zoo.layers.checks import is_whole

from ..families import family_of
from ..linear.hankel import Form
from ..linear.selection import random_values, smallest_values
from ..linear.weighing import Weighing, h2_optimal, horizon, white_noise
from ..model.layers import KeyPath, path_name
from ..model.record import LayerData, record
from ..plans import AbstractSpectrum

Inputs = Sequence[Any] | Mapping[str, Any]
"""An array for each layer, in the order of the layers or by their paths."""


class AbstractMethod(abc.ABC):
    """A method, which gives the states of layers their values."""

    needs_data: ClassVar[bool] = False
    """Whether `spectrum` needs recordings of the layer on data."""

    def record(
        self, model: PyTree, layers: Mapping[KeyPath, AbstractSSM]
    ) -> Mapping[KeyPath, LayerData | None]:
        """The recordings that the method needs of each layer. None by default."""
        return dict.fromkeys(layers)

    @abc.abstractmethod
    def spectrum(self, name: str, layer: AbstractSSM, data: LayerData | None) -> AbstractSpectrum:
        """The spectrum of `layer`. `name` is for messages, `data` is the layer's part of
        `record`."""


class AbstractLinearMethod(AbstractMethod):
    """A method that needs no data: it weighs a linear layer by Gramians of its own system."""

    @abc.abstractmethod
    def weighing(self, name: str) -> Weighing:
        """The Gramians of the layer called `name`, and the steps after its truncation."""

    def spectrum(self, name: str, layer: AbstractSSM, data: LayerData | None) -> AbstractSpectrum:
        weighed = family_of(layer).weighed
        if weighed is None:
            raise ValueError(
                f"`method` must be Data(batch=...) or Data(inputs=...) for {name}, a "
                f"{type(layer).__name__} whose states depend on data, got {self!r}"
            )
        return weighed(name, layer, self.weighing(name))


@dataclass(frozen=True)
class WhiteNoise(AbstractLinearMethod):
    """The Gramians of the theory: white noise at the input, and all outputs alike.

    `form` is that of `balanced_truncation`: "real" reduces the real map y = Re(C x), and `sigma`
    come in sums of two; "complex" the complex system, as the paper does. The output of a layer then
    differs by at most 2 * sum(dropped sigma) * ||input||.
    """

    form: Form = "real"

    def __post_init__(self):
        _check_form(self.form)

    def weighing(self, name: str) -> Weighing:
        return white_noise(self.form)


@dataclass(frozen=True)
class Horizon(AbstractLinearMethod):
    """Both Gramians of the real map, summed over a finite number of samples. There is no error
    bound.

    Where the result would be unstable the layer falls back to white noise; the plan says so.
    """

    samples: int

    def __post_init__(self):
        if not is_whole(self.samples) or self.samples < 1:
            raise ValueError(f"`horizon` must be 1 or more samples, got {self.samples}")

    def weighing(self, name: str) -> Weighing:
        return horizon(self.samples)


@dataclass(frozen=True)
class H2Optimal(AbstractLinearMethod):
    """White noise and the real map, and a search for the nearest system from the truncated one.

    Nearest in the H2 norm (`compress.optimal_reduction`); there is no error bound.
    """

    def weighing(self, name: str) -> Weighing:
        return h2_optimal()


@dataclass(frozen=True)
class SmallestValues(AbstractLinearMethod):
    """An ablation: keeps the balanced states of the complex system with the smallest values."""

    def weighing(self, name: str) -> Weighing:
        return white_noise("complex", select=smallest_values)


@dataclass(frozen=True)
class RandomValues(AbstractLinearMethod):
    """An ablation: keeps random balanced states of the complex system.

    Each layer draws from a stream of its own, which follows from `seed` and the layer's path.
    """

    seed: int

    def __post_init__(self):
        if not is_whole(self.seed) or self.seed < 0:
            raise ValueError(f"`seed` must be a whole number, 0 or more, got {self.seed}")

    def weighing(self, name: str) -> Weighing:
        stream = np.random.SeedSequence([self.seed, zlib.crc32(name.encode())])
        return white_noise("complex", select=random_values(stream.generate_state(1)[0]))


@dataclass(frozen=True, eq=False)
class Data(AbstractMethod):
    """Second moments on data instead of white noise.

    The covariance of each layer's states replaces its controllability Gramian, and that of the
    gradients that come back to the states from the model's result its observability Gramian.

    - `batch`: sequences along the first axis, on which the model is run. The model is then a layer,
      a function of one sequence, or a pair of a `zoo.Classifier` and its state;
    - `inputs`: instead of `batch`, for any other model, the layers' inputs, [b L d_model] each, as
      a list in the order of the layers or a mapping from paths (`layer_inputs` records them);
    - `gradients`: with `batch`, whether gradients count; with `inputs`, what the gradients by the
      layers' outputs are, in the same form (`output_gradients` records them), or False;
    - `lengths` [b]: of padded sequences, the number of samples of each before its padding. Padding
      is ignored;
    - `refit`: whether C and D are fitted to the layer's own outputs after the cut, by least
      squares; None for layers of Mamba alone (not Mamba-2). It helps most after cuts by white
      noise;
    - `states`: False keeps the white-noise controllability Gramian of a linear layer. With
      `gradients=False` too, data serve to refit alone and `form` counts, as in `WhiteNoise`;
    - `maps`: for layers whose parameters cannot absorb a change of basis, because their states'
      inputs are not linear in them: True keeps these parameters and adds maps to fewer states,
      False selects states. None means maps for linear attention, where they cost little and save
      much, and a selection for Mamba-2. Other layers ignore it.

    Linear layers are reduced as the real map. There are no error bounds, and where the result would
    be unstable, or all sigma are zero (as with the gradients behind a head that starts at zero), a
    linear layer falls back to white noise; the plan says so. A layer of Mamba or of linear
    attention is left as it is there. Mamba's channels are cut to one shared basis, which is folded
    into its parameters (`compress.selective.spectrum`), keys of linear attention as
    `compress.attention.spectrum` says.
    """

    needs_data: ClassVar[bool] = True

    batch: Any = None
    inputs: Inputs | None = None
    gradients: Inputs | bool = True
    lengths: Int[Array | np.ndarray, " b"] | None = None
    refit: bool | None = None
    states: bool = True
    form: Form = "real"
    maps: bool | None = None

    def __post_init__(self):
        _check_form(self.form)
        if (self.batch is None) == (self.inputs is None):
            given = "neither" if self.batch is None else "both"
            raise ValueError(f"Data must have one of `batch` and `inputs`, got {given}")
        if self.batch is not None and not isinstance(self.gradients, bool):
            raise ValueError("`gradients` must be True or False beside `batch`, got arrays")

    def __repr__(self) -> str:
        source = "batch" if self.inputs is None else "inputs"
        return f"Data({source}=...)"

    def record(
        self, model: PyTree, layers: Mapping[KeyPath, AbstractSSM]
    ) -> dict[KeyPath, LayerData | None]:
        inputs, gradients = self.inputs, self.gradients
        if self.batch is not None:
            inputs, recorded = record(model, self.batch, gradients=bool(gradients))
            gradients = recorded if gradients else False
        assert inputs is not None
        by_layer = _by_layer("inputs", inputs, layers)
        weights: Mapping[KeyPath, Any] = dict.fromkeys(layers)
        if not isinstance(gradients, bool):
            weights = _by_layer("gradients", gradients, layers)
        if self.lengths is not None:
            for keys, u in by_layer.items():
                _check_lengths(self.lengths, np.shape(u), path_name(keys))
        return {keys: LayerData(u, weights[keys], self.lengths) for keys, u in by_layer.items()}

    def spectrum(self, name: str, layer: AbstractSSM, data: LayerData | None) -> AbstractSpectrum:
        how = {
            "states": self.states,
            "refit": self.refit,
            "form": self.form,
            "maps": self.maps,
        }
        return family_of(layer).on_data(name, layer, data, **how)


@dataclass(frozen=True, eq=False)
class Recorded(AbstractMethod):
    """Another method, on given recordings of the layers by their paths."""

    method: AbstractMethod
    data: Mapping[str, LayerData]

    needs_data: ClassVar[bool] = True

    def record(
        self, model: PyTree, layers: Mapping[KeyPath, AbstractSSM]
    ) -> dict[KeyPath, LayerData | None]:
        return {keys: self.data[path_name(keys)] for keys in layers}

    def spectrum(self, name: str, layer: AbstractSSM, data: LayerData | None) -> AbstractSpectrum:
        return self.method.spectrum(name, layer, data)


def _check_form(form: str) -> None:
    if form not in ("real", "complex"):
        raise ValueError(f"`form` must be 'real' or 'complex', got {form!r}")


def _check_lengths(lengths: Any, shape: tuple[int, ...], path: str) -> None:
    b, L = shape[:2]
    if len(lengths) != b or np.min(lengths) < 1 or np.max(lengths) > L:
        raise ValueError(
            f"`lengths` must be {b} numbers from 1 to {L} for {path or 'the layer'}, got "
            f"{len(lengths)} from {np.min(lengths)} to {np.max(lengths)}"
        )


def _by_layer(
    what: str, given: Inputs, layers: Mapping[KeyPath, AbstractSSM]
) -> dict[KeyPath, Float[Any, "b L d_model"]]:
    """`given`, one array [b L d_model] for each layer, checked."""
    names = {path_name(keys): keys for keys in layers}
    if not isinstance(given, Mapping):
        if len(given) != len(names):
            raise ValueError(
                f"`{what}` must have {len(names)} entries, one for each layer, got {len(given)}"
            )
        given = dict(zip(names, given, strict=True))
    if given.keys() != names.keys():
        raise ValueError(
            f"`{what}` must be for the layers {', '.join(names)}, got {', '.join(sorted(given))}"
        )
    for path, u in given.items():
        d_model, where = layers[names[path]].d_model, path or "the layer"
        if np.ndim(u) != 3 or np.shape(u)[2] != d_model or 0 in np.shape(u):
            raise ValueError(
                f"`{what}` for {where} must have shape (sequences, samples, {d_model}), got "
                f"{np.shape(u)}"
            )
        if not np.all(np.isfinite(u)):
            raise ValueError(f"`{what}` for {where} must be finite, got NaN or infinity")
    return {keys: given[path] for path, keys in names.items()}
