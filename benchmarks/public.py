"""The same network as public packages write it, on an autodiffed associative scan.

One sequence at a time under `jax.vmap`: `eqx.nn.BatchNorm` on channels first, `eqx.nn.Linear` at
every sample, `eqx.nn.Dropout`, `jax.nn.gelu`, and all states of the layer at once.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from zoo import BATCH_AXIS, LRU, Classifier
from zoo.network.block import Block
from zoo.network.norm import MOMENTUM


class AssociativeLRU(LRU):
    """The layer as public packages compute it: all states at once, differentiated through."""

    def __call__(self, u: Float[Array, "L H"]) -> Float[Array, "L H"]:
        lti = self.to_lti()
        lam = jnp.broadcast_to(jnp.exp(lti.log_lam), (len(u), self.d_state))
        Bu = jax.vmap(lambda u_k: lti.B @ u_k)(u)
        _, x = jax.lax.associative_scan(_compose, (lam, Bu))
        return jax.vmap(lambda x_k, u_k: jnp.real(lti.C @ x_k) + self.D * u_k)(x, u)


def _compose(first, second):
    """x -> a x + b, one after the other."""
    return first[0] * second[0], second[0] * first[1] + second[1]


class PublicBlock(eqx.Module):
    """x + dropout(GLU(dropout(GELU(ssm(norm(x)))))); the order of the fields is that of `Block`."""

    norm: eqx.nn.BatchNorm
    ssm: AssociativeLRU
    linear: eqx.nn.Linear
    gate: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __call__(
        self, x: Float[Array, "L H"], state: eqx.nn.State, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "L H"], eqx.nn.State]:
        inner_key, outer_key = jax.random.split(key)
        y, state = self.norm(x.T, state)
        y = self.dropout(jax.nn.gelu(self.ssm(y.T)), key=inner_key)
        y = jax.vmap(self.linear)(y) * jax.nn.sigmoid(jax.vmap(self.gate)(y))
        return x + self.dropout(y, key=outer_key), state


class PublicClassifier(eqx.Module):
    """Encoder, blocks, mean over the length, linear head."""

    encoder: eqx.nn.Linear
    blocks: tuple[PublicBlock, ...]
    head: eqx.nn.Linear

    def __call__(
        self, x: Float[Array, "L c"], state: eqx.nn.State, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " classes"], eqx.nn.State]:
        h = jax.vmap(self.encoder)(x)
        for block, block_key in zip(
            self.blocks, jax.random.split(key, len(self.blocks)), strict=True
        ):
            h, state = block(h, state, key=block_key)
        return self.head(jnp.mean(h, axis=0)), state


def public(model: Classifier) -> tuple[PublicClassifier, eqx.nn.State]:
    """`model`, an LRU classifier on real inputs with BatchNorm, and its state at the start."""

    def block(ours: Block) -> PublicBlock:
        H = ours.ssm.d_model
        norm = eqx.nn.BatchNorm(H, BATCH_AXIS, mode="batch", momentum=MOMENTUM)
        return PublicBlock(
            norm, ours.ssm, ours.glu.linear, ours.glu.gate, eqx.nn.Dropout(ours.dropout.rate)
        )

    return eqx.nn.make_with_state(
        lambda: PublicClassifier(
            model.encoder.linear, tuple(block(b) for b in model.blocks), model.head
        )
    )()
