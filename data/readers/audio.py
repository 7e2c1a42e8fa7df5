"""Recordings: a folder of WAV files, where the class is a subfolder or the beginning of the file's
name."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from ..checks import check_at_least, check_choice, check_shares, reading
from ..store.places import Places
from ..task import Split, Task
from ..typing import checked
from .divide import SPLITS
from .supervised import Labelled, supervised_task

MOST_RATE = 1_000_000
"""Highest rate of a recording, or of what it is brought to [1/s]."""
MOST_BANDS = 4096
"""Most mel bands."""
LONGEST = 86_400
"""Most seconds of a recording, a day."""
SPARE = 1.0
"""Seconds after the end, where the filter of a change of rate reaches [s]."""


@dataclass(frozen=True)
class AudioConfig:
    """Recordings of classes: `CLASS/*.wav`, or `CLASS_*.wav` in one folder.

    Folders `train`, `validation` and `test` with such files define the splits.
    """

    features: Literal["mel", "raw"] = "mel"
    """Features: logarithms of the power in mel bands, a step for each hop, or the samples
    themselves."""
    rate: int = 8000
    """Samples per second that recordings are brought to [1/s]."""
    seconds: float = 1.0
    """Longer recordings are cut to their beginning of this length [s]."""
    bands: int = 32
    """Mel bands: channels."""
    hop: float = 0.016
    """Time between steps, with mel bands; each covers two hops [s]."""
    validation: float = 0.15
    """Share for validation, if there is no folder for it."""
    test: float = 0.2
    """Share for testing, if there is no folder for it."""
    seed: int = 0
    """Seed of the split."""
    normalize: bool = True
    """Whether to scale each channel to mean 0 and deviation 1 on the training split."""
    balance: bool = False
    """Whether all classes have equal weight in the loss, however rare."""

    def __post_init__(self):
        check_choice(self, "features", ("mel", "raw"))
        check_at_least(self, rate=100, bands=1)
        check_shares(self)
        for name, most in (("rate", MOST_RATE), ("bands", MOST_BANDS)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most}, got {getattr(self, name)}")
        for name in ("seconds", "hop"):
            if not 0 < getattr(self, name) <= LONGEST:
                raise ValueError(
                    f"{name} must be above 0, and at most {LONGEST}, got {getattr(self, name)}"
                )


def load_audio(path: Path, config: AudioConfig, places: Places) -> Task:
    """The recordings in a folder as a classification task."""
    if not path.is_dir():
        raise ValueError("recordings must be in a folder, one or more for each class, got a file")
    files = _files(path)
    total, done = sum(map(len, files.values())), 0
    parts = {}
    for split, own in files.items():
        steps, names = [], []
        for file in own:
            steps.append(_steps(file, config))
            names.append(_class_of(file, path))
            done += 1
            if places.progress is not None and (done % 100 == 0 or done == total):
                places.progress(done, total, "reading recordings")
        labels = np.zeros(len(names), np.int32)
        parts[split] = Labelled(Split.from_sequences(steps, labels), np.asarray(names))
    return supervised_task(path.name, "classification", parts, config)


def read_recordings(path: Path, config: AudioConfig) -> list[np.ndarray]:
    """The steps [L, channels] of a recording, or of those in a folder, in order of their names."""
    files = sorted(_wav(path.rglob("*"))) if path.is_dir() else [path]
    return [_steps(file, config) for file in files]


def _files(path: Path) -> dict[str, list[Path]]:
    """The files of each split, in order of their names."""
    divided = {name: path / name for name in SPLITS if (path / name).is_dir()}
    if "train" not in divided:
        divided = {"train": path}
    return {name: sorted(_wav(folder.rglob("*"))) for name, folder in divided.items()}


def _wav(files: Iterable[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() == ".wav" and file.is_file()]


def _class_of(file: Path, root: Path) -> str:
    """The recording's subfolder; without one, its name up to _ or -."""
    parts = file.relative_to(root).parts[:-1]
    if parts and parts[0] in SPLITS:
        parts = parts[1:]
    return parts[-1] if parts else file.stem.replace("-", "_").partition("_")[0]


def _steps(file: Path, config: AudioConfig) -> np.ndarray:
    """The steps [L, channels] of a recording."""
    steps = max(1, round(config.seconds * config.rate))
    wave = read_wave(file, config.rate, config.seconds)[:steps]
    if config.features == "raw":
        return wave[:, None]
    hop = max(1, round(config.hop * config.rate))
    return mel_bands(wave, config.rate, 2 * hop, hop, config.bands)


@checked
def read_wave(file: Path, rate: int, seconds: float | int = LONGEST) -> Float[np.ndarray, " L"]:
    """The samples of a recording in [-1, 1], all channels in one, at `rate` [1/s]; those of its
    first `seconds`, and some after them."""
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    with reading(file, "a WAV file"), warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks that are no sound
        warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)  # a cut file
        own, samples = wavfile.read(file)
    if not 1 <= own <= MOST_RATE:
        raise ValueError(f"{file} must have 1 to {MOST_RATE} samples per second, got {own}")
    if not samples.size:
        raise ValueError(f"{file} must hold a sample or more, got none")
    wave = samples[: math.ceil((seconds + SPARE) * own)].astype(np.float64)
    if not np.isfinite(wave).all():
        raise ValueError(f"{file} must hold finite samples, got NaN or infinity")
    if samples.dtype.kind == "u":
        wave -= 128
    if samples.dtype.kind in "iu":
        wave /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    if wave.ndim == 2:
        wave = wave.mean(axis=1)
    if own != rate:
        common = math.gcd(own, rate)
        wave = resample_poly(wave, rate // common, own // common)
    return wave


@checked
def mel_bands(
    wave: Float[np.ndarray, " L"], rate: int, window: int, hop: int, bands: int
) -> Float[np.ndarray, "steps bands"]:
    """Logarithms of the power in `bands` mel bands, of Hann windows every `hop` samples."""
    if len(wave) < window:
        wave = np.pad(wave, (0, window - len(wave)))
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2
    return np.log(power @ _mel_weights(rate, window, bands) + 1e-6)


@lru_cache(maxsize=4)
def _mel_weights(rate: int, window: int, bands: int) -> np.ndarray:
    """Triangles over the frequencies of a window, equally spaced in mel (O'Shaughnessy 1987)."""
    highest = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)
    f = np.fft.rfftfreq(window, 1 / rate)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.minimum((f - low) / (middle - low), (high - f) / (high - middle))
    weights = np.maximum(weights, 0)
    # a band between two frequencies takes the nearest one
    empty = np.flatnonzero(weights.sum(axis=0) == 0)
    weights[np.abs(f - middle[empty]).argmin(axis=0), empty] = 1
    return weights
