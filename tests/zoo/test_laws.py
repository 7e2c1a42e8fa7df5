"""The laws that every layer states, over all layers of the registry and some from outside."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float

from zoo import LAYERS, AbstractLinearSSM, AbstractSelectiveSSM, DiagonalLTI, lti_apply, lti_step
from zoo.law import (
    BrokenLaw,
    check_gradients,
    check_inverse,
    check_layer,
    check_padding,
    check_pieces,
    check_sizes,
    check_step,
    check_truncation,
)
from zoo.masks import within

H, N = 8, 4
U = jax.random.normal(jax.random.key(1), (24, H))


class Leaky(AbstractLinearSSM):
    """Leaky integrators: x_k = exp(-exp(rate)) x_{k-1} + B u_k, y_k = C x_k + D u_k, all real."""

    is_modal: ClassVar[bool] = True
    dynamics: ClassVar[tuple[str, ...]] = ("rate", "B")

    rate: Float[Array, " d_state"]
    B: Float[Array, "d_state d_model"]
    C: Float[Array, "d_model d_state"]
    D: Float[Array, " d_model"]

    @classmethod
    def init(cls, d_model, d_state, *, key):
        B_key, C_key = jax.random.split(key)
        B, C = (jax.random.normal(k, (d_state, d_model)) for k in (B_key, C_key))
        return cls(jnp.linspace(-3.0, 0.0, d_state), B, C.T, jnp.ones(d_model))

    @property
    def d_model(self):
        return self.D.shape[0]

    @property
    def d_state(self):
        return self.rate.shape[0]

    def __call__(self, u):
        return self.run(self.init_state(), u)[1]

    def init_state(self):
        return jnp.zeros(self.d_state, jnp.complex64)

    def step(self, carry, u_t):
        lti = self.to_lti()
        carry, y_t = lti_step(lti.log_lam, lti.B, lti.C, carry, u_t)
        return carry, y_t + self.D * u_t

    def run(self, carry, u, length=None):
        lti = self.to_lti()
        y, carry = lti_apply(lti.log_lam, lti.B, lti.C, u, carry, length=length)
        return carry, y + self.D * u

    def to_lti(self):
        return DiagonalLTI(-jnp.exp(self.rate) + 0j, self.B + 0j, self.C + 0j, self.D)

    def from_lti(self, lti):
        parts = (jnp.log(-jnp.real(lti.log_lam)), jnp.real(lti.B), jnp.real(lti.C), lti.D)
        return type(self)(*(jnp.asarray(x, self.rate.dtype) for x in parts))


class LinearAttention(AbstractSelectiveSSM):
    """S_k = diag(sigmoid(G u_k)) S_{k-1} + (K u_k) u_k^T and y_k = S_k^T (Q u_k)."""

    dynamics: ClassVar[tuple[str, ...]] = ("gate",)

    gate: Float[Array, "d_state d_model"]
    keys: Float[Array, "d_state d_model"]
    queries: Float[Array, "d_state d_model"]

    @classmethod
    def init(cls, d_model, d_state, *, key):
        return cls(*jax.random.normal(key, (3, d_state, d_model)) / d_model**0.5)

    @property
    def d_model(self):
        return self.gate.shape[1]

    @property
    def d_state(self):
        return self.gate.shape[0]

    def __call__(self, u):
        return self.run(self.init_state(), u)[1]

    def init_state(self):
        return jnp.zeros(self.gate.shape, self.gate.dtype)

    def step(self, carry, u_t):
        carry = jax.nn.sigmoid(self.gate @ u_t)[:, None] * carry
        carry = carry + (self.keys @ u_t)[:, None] * u_t
        return carry, carry.T @ (self.queries @ u_t)

    def run(self, carry, u, length=None):
        inside = within(len(u) if length is None else length, len(u))

        def step(carry, sample):
            u_t, counts = sample
            after, y_t = self.step(carry, u_t)
            return jnp.where(counts, after, carry), y_t

        return jax.lax.scan(step, carry, (u, inside))

    def resized(self, n):
        return type(self)(*jnp.zeros((3, n, self.d_model)))

    def first_states(self, n):
        return jax.tree.map(lambda x: x[:n], self)


MAKERS = {
    name: lambda key, config=config: config(d_state=N).build(H, key=key)
    for name, config in LAYERS.items()
} | {
    "a linear one from outside": lambda key: Leaky.init(H, N, key=key),
    "a selective one from outside": lambda key: LinearAttention.init(H, N, key=key),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_every_layer_keeps_the_laws(make, getkey):
    check_layer(make(getkey()), U)


class Forgetful(Leaky):
    """Its `step` loses the feed-through."""

    def step(self, carry, u_t):
        carry, y_t = Leaky.step(self, carry, u_t)
        return carry, y_t - self.D * u_t


class Restless(Leaky):
    """Its `run` begins every piece anew, and does not see where padding begins."""

    def run(self, carry, u, length=None):
        return Leaky.run(self, self.init_state(), u)


class Stretched(Leaky):
    """Its `from_lti` says that the layer is twice what it is."""

    def from_lti(self, lti):
        return Leaky.from_lti(self, eqx.tree_at(lambda lti: lti.C, lti, 2 * lti.C))


class Stuck(Leaky):
    """It is never of another size, and has no gradient."""

    def __call__(self, u):
        return jax.lax.stop_gradient(Leaky.__call__(self, u))

    def from_lti(self, lti):
        return self


@pytest.mark.parametrize(
    ("kind", "law", "message"),
    [
        (
            Forgetful,
            check_step,
            "the outputs of `step` of Forgetful and those of the call must",
        ),
        (Restless, check_pieces, "the outputs of `run` in two pieces of Restless and those of the"),
        (Restless, check_padding, "the state after a padded piece of Restless and that after"),
        (
            Stretched,
            check_inverse,
            "the outputs after `from_lti` of Stretched and those before",
        ),
        (Stretched, check_truncation, "a truncated layer of Stretched and its system must agree"),
        (Stuck, check_sizes, r"Stuck.resized\(1\) has d_state=4 and d_model=8, expected 1 and 8"),
        (Stuck, check_gradients, "the gradient of Stuck is zero for all parameters"),
    ],
)
def test_a_broken_law_is_said(kind, law, message, getkey):
    layer = kind.init(H, N, key=getkey())
    given = () if law is check_sizes else (U,)
    with pytest.raises(BrokenLaw, match=message) as caught:
        law(layer, *given)
    assert "\n" not in str(caught.value)
