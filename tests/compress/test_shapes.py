"""One program for many sizes: padding with copies of a state changes no number."""

from typing import ClassVar

import jax
import numpy as np
import optax
import pytest

from compress import Ranks, compress
from compress.linear import jacobian as parameters
from compress.linear import system as precision
from compress.linear.jacobian import derivatives
from compress.linear.system import double_lti, first_of_layer, from_double_lti, padded_layer
from compress.numerics.padding import SMALLEST, padded_size
from zoo import LRU, S5

H = 3


class Plain(LRU):
    """One of which it is not known that its states work by themselves."""

    is_modal: ClassVar[bool] = False


def lru(key, n, h=H):
    return LRU.init(h, n, key=key)


def s5(key, n, h=H):
    return S5.init(h, n, key=key)


def s5_bilinear(key, n, h=H):
    return S5.init(h, n, key=key, discretization="bilinear")


def plain(key, n):
    return Plain(**vars(lru(key, n)))


MODAL = pytest.mark.parametrize("make", [lru, s5, s5_bilinear])


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.shape(x) == np.shape(y)
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13)


def test_sizes_are_few_and_never_too_small():
    sizes = [padded_size(n) for n in range(1, 400)]
    assert all(size >= n for n, size in enumerate(sizes, start=1))
    assert sorted(set(sizes)) == [SMALLEST, 96, 128, 192, 256, 384, 512]


@MODAL
@pytest.mark.parametrize("n", [1, 20, SMALLEST, SMALLEST + 1])
def test_a_padded_layer_begins_with_the_layer(make, n, getkey):
    layer = make(getkey(), n)
    padded = padded_layer(layer)
    assert padded.d_state == padded_size(n)
    assert_same(first_of_layer(padded, n), layer)


@MODAL
def test_padding_changes_no_system_no_layer_and_no_derivative(make, getkey, x64):
    layer, smaller = (
        jax.tree.map(lambda x: x.astype(np.float64), make(getkey(), n)) for n in (20, 7)
    )
    assert_same(double_lti(layer), jax.tree.map(np.asarray, layer.to_lti()))
    lti = double_lti(smaller)
    assert_same(from_double_lti(layer, lti), layer.from_lti(lti))
    ours, theirs = derivatives(layer), parameters._derivatives(layer)
    assert ours.shapes == theirs.shapes
    for name in ("of_state", "of_B", "of_C"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.keys() == b.keys()
        for k in a:
            assert_same(a[k], b[k])


@MODAL
def test_layers_of_many_sizes_are_cut_by_one_program_of_each_kind(make, getkey):
    names = []

    def listener(name, *_, fun_name="", **__):
        if "backend_compile" in name:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listener)
    for n, rank in ((30, 20), (20, 12), (12, 5)):
        layer = make(getkey(), n, h=7)  # a width that no other test has
        compress(layer, optax.adam(1e-3).init(layer), policy=Ranks(rank))
    for function in ("_to_lti", "_from_lti", "_jvp"):
        assert sum(function in name for name in names) == 1, function


def test_a_layer_that_is_not_known_to_be_modal_is_cut_as_it_is(getkey, monkeypatch):
    layer = plain(getkey(), 20)
    assert padded_layer(layer) is layer
    sizes = []
    from_lti = precision._from_lti

    def noted(layer, lti):
        sizes.append((layer.d_state, lti.d_state))
        return from_lti(layer, lti)

    monkeypatch.setattr(precision, "_from_lti", noted)
    (cut, _) = compress(layer, None, policy=Ranks(8))
    assert sizes == [(20, 8)]
    (expected, _) = compress(LRU(**vars(layer)), None, policy=Ranks(8))
    for x, y in zip(jax.tree.leaves(cut), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_a_resized_layer_has_the_shapes_of_a_new_layer(getkey):
    assert [x.shape for x in jax.tree.leaves(lru(getkey(), 20).resized(9))] == [
        x.shape for x in jax.tree.leaves(lru(getkey(), 9))
    ]
