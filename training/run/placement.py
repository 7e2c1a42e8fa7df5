"""Placement of a run's arrays: on one device, or on all devices of several processes. Between
programs each process holds the state as its own arrays, equal in all processes, so that code that
cuts, weighs or saves a model needs no communication. For a program they become arrays of all
devices, each of which has all of the state and its part of the batch; XLA adds what has to be added
across them. A random number does not depend on where it is drawn.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from data.pipeline import Shard

from ..settings.errors import UsageError

_AXIS = "batch"


def check_devices() -> None:
    """`UsageError` if JAX finds no device of the requested kind."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts where it has no plugin
        asked = os.environ.get("JAX_PLATFORMS") or "unset"
        why = " ".join(str(error).split())[:200] or "JAX has no plugin for them"
        raise UsageError(
            f"JAX_PLATFORMS must name devices that this machine has, got {asked} ({why})"
        ) from None


class Placement:
    """All devices of the processes that train together (`jax.distributed`).

    A process alone uses one device, and nothing is moved.
    """

    def __init__(self):
        self.devices = jax.device_count() if jax.process_count() > 1 else 1
        self.shard = Shard(jax.process_index(), jax.process_count())
        devices = jax.devices()[: self.devices]
        mesh = jax.make_mesh(
            (self.devices,), (_AXIS,), axis_types=(AxisType.Auto,), devices=devices
        )
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._split = [NamedSharding(mesh, PartitionSpec(*[None] * k, _AXIS)) for k in range(2)]

    @property
    def is_alone(self) -> bool:
        """Whether no other process trains with this one."""
        return self.shard.count == 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.shard.index == 0

    @property
    def outputs(self) -> NamedSharding | None:
        """The sharding of a program's results, for `jax.jit`."""
        return None if self.devices == 1 else self._everywhere

    def share(self, tree: Any) -> Any:
        """Arrays of this process, alike in all processes, as arrays of all devices.

        Those that `split` has given stay as they are.
        """
        return tree if self.devices == 1 else jax.tree.map(self._share, tree)

    def _share(self, x: Any) -> jax.Array:
        x = jnp.asarray(x)
        if len(x.sharding.device_set) == self.devices:
            return x
        copies = [jax.device_put(x, device) for device in jax.local_devices()]
        return jax.make_array_from_single_device_arrays(x.shape, self._everywhere, copies)

    def own(self, tree: Any) -> Any:
        """Results of a program, which are alike on all devices, as arrays of this process."""
        return tree if self.devices == 1 else jax.tree.map(lambda x: x.addressable_data(0), tree)

    def split(self, tree: Any, axis: int = 0) -> Any:
        """This process's rows, along `axis`, as the batch of all processes.

        Those of the whole batch must be a multiple of the devices.
        """
        if self.devices == 1:
            return jax.device_put(tree)
        where = self._split[axis]
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(where, x), tree)

    def batch_size(self, most: int) -> int:
        """The largest multiple of the devices up to `most`, at least one row for each."""
        return max(most // self.devices, 1) * self.devices

    def agree(self, tree: Any) -> Any:
        """The arrays of the first process, in all of them. AssertionError if shapes differ."""
        if self.is_alone:
            return tree
        leaves, structure = jax.tree.flatten(tree)
        arrays = [np.asarray(x) for x in leaves]
        sizes = np.array([size for x in arrays for size in (x.ndim, *x.shape)])
        multihost_utils.assert_equal(sizes, "the processes hold states of different sizes")
        sent = b"".join(x.tobytes() for x in arrays)
        got = multihost_utils.broadcast_one_to_all(np.frombuffer(sent, np.uint8)).tobytes()
        agreed, start = [], 0
        for x in arrays:
            part = np.frombuffer(got[start : start + x.nbytes], x.dtype).reshape(x.shape)
            agreed.append(jnp.asarray(part))
            start += x.nbytes
        return jax.tree.unflatten(structure, agreed)

    def wait(self, what: str) -> None:
        """Wait until all processes have reached this point, called `what`."""
        if not self.is_alone:
            multihost_utils.sync_global_devices(what)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process. The answer is the same in all processes."""
        if self.is_alone:
            return flag
        return bool(multihost_utils.process_allgather(np.array(flag)).any())
