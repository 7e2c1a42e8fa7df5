"""A stranger's layer, task, method and policy, from outside: nothing of ours is edited.

They are registered here, trained, shrunk, interrupted, resumed and reported like our own.
"""

import io
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Complex, Float
from rich.console import Console

import data.registry
import zoo.registry
from compress import (
    AbstractLayerPolicy,
    AbstractLinearMethod,
    LinearSpectrum,
    Rank,
    Weighing,
    compress,
    family_of,
    plan,
)
from compress.linear.balance import gramian_factors
from data import Split, Task, load_task, register_task
from training.commands.train import execute
from training.reporting.events import read_events
from training.run.interrupt import Interrupt, Interrupted
from training.settings.command import parse_command
from training.settings.errors import UsageError
from zoo import AbstractLinearSSM, AbstractSSM, DiagonalLTI, register_layer
from zoo.recurrence.linear import lti_apply, lti_step


class Modes(AbstractLinearSSM):
    """x_k = exp(rate) x_{k-1} + B u_k, y_k = Re(C x_k) + D u_k, as plainly as it can be said."""

    is_modal: ClassVar[bool] = True
    dynamics: ClassVar[tuple[str, ...]] = ("decay_log", "angle")

    decay_log: Float[Array, " N"]
    angle: Float[Array, " N"]
    B_re: Float[Array, "N H"]
    B_im: Float[Array, "N H"]
    C_re: Float[Array, "H N"]
    C_im: Float[Array, "H N"]
    D: Float[Array, " H"]

    @property
    def d_model(self) -> int:
        return self.D.shape[0]

    @property
    def d_state(self) -> int:
        return self.angle.shape[0]

    def __call__(self, u: Float[Array, "L H"]) -> Float[Array, "L H"]:
        return self.run(self.init_state(), u)[1]

    def init_state(self) -> Complex[Array, " N"]:
        return jnp.zeros(self.d_state, jnp.complex64)

    def step(self, carry, u_t):
        lti = self.to_lti()
        carry, y_t = lti_step(lti.log_lam, lti.B, lti.C, carry, u_t)
        return carry, y_t + self.D * u_t

    def run(self, carry, u, length=None):
        lti = self.to_lti()
        y, carry = lti_apply(lti.log_lam, lti.B, lti.C, u, carry, length=length)
        return carry, y + self.D * u

    def to_lti(self) -> DiagonalLTI:
        return DiagonalLTI(
            log_lam=jax.lax.complex(-jnp.exp(self.decay_log), self.angle),
            B=jax.lax.complex(self.B_re, self.B_im),
            C=jax.lax.complex(self.C_re, self.C_im),
            D=self.D,
        )

    def from_lti(self, lti: DiagonalLTI) -> "Modes":
        parts = {
            "decay_log": jnp.log(jnp.maximum(-jnp.real(lti.log_lam), 1e-7)),
            "angle": jnp.imag(lti.log_lam),
            "B_re": jnp.real(lti.B),
            "B_im": jnp.imag(lti.B),
            "C_re": jnp.real(lti.C),
            "C_im": jnp.imag(lti.C),
            "D": jnp.asarray(lti.D),
        }
        return Modes(**{name: x.astype(self.D.dtype) for name, x in parts.items()})


@dataclass(frozen=True)
class ModesConfig:
    """The toy layer's settings."""

    states_per_channel: ClassVar[bool] = False

    d_state: int = 16
    """States."""

    def build(self, d_model, *, key):
        keys = jax.random.split(key, 6)
        shape = (self.d_state, d_model)
        return Modes(
            decay_log=jnp.log(jax.random.uniform(keys[0], (self.d_state,), minval=0.02)),
            angle=jax.random.uniform(keys[1], (self.d_state,), maxval=1.0),
            B_re=jax.random.normal(keys[2], shape) / d_model,
            B_im=jax.random.normal(keys[3], shape) / d_model,
            C_re=jax.random.normal(keys[4], shape[::-1]) / self.d_state,
            C_im=jax.random.normal(keys[5], shape[::-1]) / self.d_state,
            D=jnp.ones(d_model),
        )


@dataclass(frozen=True)
class WavesConfig:
    """The toy task's settings."""

    count: int = 64
    """Sequences of each split."""


def load_waves(config, places):
    """Whether a noisy wave is slow or fast."""

    def split(seed):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, config.count).astype(np.int32)
        time = np.arange(32)[None, :]
        phase = rng.normal(size=(len(labels), 1))
        waves = np.sin(time * np.where(labels, 0.7, 0.2)[:, None] + phase)
        noisy = waves + 0.1 * rng.normal(size=waves.shape)
        return Split(noisy[..., None].astype(np.float32), labels)

    splits = {name: split(k) for k, name in enumerate(("train", "validation", "test"))}
    return Task("waves", 32, "real", 1, splits, classes=2, baselines={"majority": 0.5})


@dataclass(frozen=True)
class Recent(AbstractLinearMethod):
    """A method of its own: what the last samples have put into the states counts more."""

    forgetting: float = 0.02

    def weighing(self, name: str) -> Weighing:
        def factors(system):
            Lp, Lq = gramian_factors(system, "real")
            age = np.exp(-self.forgetting / np.maximum(-np.real(system.log_lam), 1e-6))
            return age[:, None] * Lp, Lq

        return Weighing("recent noise", "real", factors)


@dataclass(frozen=True)
class Halve(AbstractLayerPolicy):
    """A policy of its own: half of the states go each time."""

    def rank(self, sigma):
        return max(2, len(sigma) // 2)


@pytest.fixture(scope="module")
def plugged_in():
    register_layer("modes", ModesConfig)
    register_task("waves", WavesConfig, load_waves)
    yield
    zoo.registry._layers.pop("modes")
    data.registry._ENTRIES.pop("waves")


class StopAt(Interrupt):
    """An interrupt that is asked for once a number of questions has been put."""

    def __init__(self, questions):
        self._left = questions
        super().__init__()

    @property
    def requested(self):
        self._left -= 1
        return self._left < 0

    @requested.setter
    def requested(self, _):
        pass


OPTIONS = (
    "--model modes --task waves --steps 40 --batch-size 16 --network.d-model 4 --network.blocks 1 "
    "--compression.mode tolerance --compression.method real --compression.shrinks 2 "
    "--compression.window 0.5 --compression.multiple 1 --compression.rehearsal 0 "
    "--loop.log-every 10 --loop.evaluate-every 20 --loop.checkpoint-every 10 "
    "--loop.steps-per-dispatch 5"
)


def train(out, *options, **how):
    command = parse_command([*options, "--out", str(out)])
    return execute(command, Console(file=io.StringIO()), **how)


def test_a_policy_that_the_mode_does_not_use_is_refused(tmp_path):
    options = ("--task", "digits", "--compression.mode", "auto")
    with pytest.raises(UsageError, match=r"`policy` must be None with .*mode auto, got Rank\("):
        train(tmp_path / "run", *options, policy=Rank(4))
    assert not (tmp_path / "run").exists()


def test_they_train_shrink_resume_and_report(plugged_in, tmp_path, monkeypatch):
    how = {"method": Recent(), "policy": Halve()}
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    train(whole, *OPTIONS.split(), **how)
    events = read_events(whole / "metrics.jsonl")
    shrinks = [e for e in events if e["event"] == "shrink"]
    assert [[row["after"] for row in e["layers"]] for e in shrinks] == [[32], [16]]
    assert shrinks[0]["layers"][0]["gramians"] == "recent noise"
    report = (whole / "report.html").read_text()
    assert "modes on waves" in report
    assert "recent noise" in report

    monkeypatch.setattr("training.commands.train.Interrupt", lambda *_: StopAt(3))
    with pytest.raises(Interrupted):
        train(halted, *OPTIONS.split(), **how)
    monkeypatch.undo()
    execute(parse_command(["--resume", str(halted)]), Console(file=io.StringIO()), **how)
    assert (halted / "report.html").exists()

    def measured(folder):
        return [
            (e["step"], e["loss"], e["accuracy"])
            for e in read_events(folder / "metrics.jsonl")
            if e["event"] == "eval"
        ]

    assert measured(halted) == measured(whole)


def test_they_work_in_a_loop_of_ones_own(plugged_in):
    layer = ModesConfig(d_state=12).build(3, key=jax.random.key(0))
    planned = plan(layer, policy=Halve(), method=Recent())
    assert planned.ranks == {"": 6}
    small, _ = compress(layer, plan=planned)
    assert type(small) is Modes
    u = jax.random.normal(jax.random.key(1), (20, 3))
    assert bool(jnp.all(jnp.isfinite(small(u))))
    assert isinstance(Recent().spectrum("it", layer, None), LinearSpectrum)
    assert load_task("waves").splits["train"].inputs.shape == (64, 32, 1)


class Alone(AbstractSSM):
    """A layer of no family."""

    dynamics: ClassVar[tuple[str, ...]] = ()
    d_model = d_state = 1
    __call__ = init_state = step = run = resized = first_states = None


def test_a_layer_without_a_family_says_what_it_must_be():
    with pytest.raises(ValueError, match="a Alone must derive from AbstractLinearSSM"):
        family_of(Alone())
