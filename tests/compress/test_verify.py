"""The measured H-infinity error."""

import equinox as eqx
import jax
import numpy as np
import pytest

from compress import Ranks, WhiteNoise, balanced_truncation, compress, h2_error, verify
from compress.analysis.verify import hinf_error
from zoo import LRU, S5, DiagonalLTI


def nothing(m=2):
    zero = np.zeros((1, m), complex)
    return DiagonalLTI(np.array([-1.0 + 0j]), zero, zero.T, np.zeros(m))


def one_mode(decay, angle, gain):
    return DiagonalLTI(
        np.array([-decay + 1j * angle]),
        np.array([[1.0 + 0j]]),
        np.array([[gain + 0j]]),
        np.zeros(1),
    )


@pytest.mark.parametrize("decay", [1e-10, 1e-4, 0.3, 5.0])
@pytest.mark.parametrize("angle", [0.0, 1.234567, -3.1, np.pi, 17.0])
def test_one_mode(decay, angle):
    """|c b| / (1 - |lam|), whose peak is as narrow as the decay."""
    expected = 2.5 / -np.expm1(-decay)
    measured = hinf_error(one_mode(decay, angle, 2.5), nothing(1), form="complex")
    assert measured == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", ["complex", "real"])
def test_dense_sweep_finds_no_more(kind, form, system):
    before, after = system(kind), system(kind, 1)
    measured = hinf_error(before, after, form=form)
    w = np.linspace(-np.pi, np.pi, 200_001)
    norms = []
    for part in np.array_split(w, 100):
        G = [_response(s, part) for s in (before, after)]
        if form == "real":
            G = [
                (g + _response(s, -part).conj()) / 2
                for g, s in zip(G, (before, after), strict=True)
            ]
        difference = G[0] - G[1] + np.diag(before.D - after.D)
        norms.append(np.linalg.norm(difference, 2, axis=(1, 2)).max())
    assert max(norms) <= measured * (1 + 1e-12)
    assert measured == pytest.approx(max(norms), rel=2e-3)


def _response(lti, w):
    return (lti.C * (-1 / np.expm1(lti.log_lam - 1j * w[:, None]))[:, None, :]) @ lti.B


def test_many_channels(system):
    """Above a few channels the sweep estimates: the refined result is the same."""
    before, after = system("hippo", m=12), system("hippo", 1, m=12)
    w = np.linspace(-np.pi, np.pi, 40_001)
    D = np.diag(before.D - after.D)
    parts = [_response(before, x) - _response(after, x) + D for x in np.array_split(w, 40)]
    dense = max(np.linalg.norm(G, 2, axis=(1, 2)).max() for G in parts)
    measured = hinf_error(before, after, form="complex")
    assert dense <= measured * (1 + 1e-12)
    assert measured == pytest.approx(dense, rel=1e-2)


@pytest.mark.parametrize("form", ["complex", "real"])
def test_equal_systems(form, system):
    lti = system("ring")
    assert hinf_error(lti, lti, form=form) <= 1e-10 * hinf_error(lti, nothing(), form=form)
    assert hinf_error(nothing(), nothing(), form=form) == 0


def test_difference_of_feedthroughs():
    before = eqx.tree_at(lambda s: s.D, nothing(), np.array([3.0, -4.0]))
    assert hinf_error(before, nothing(), form="complex") == pytest.approx(4.0)


def test_single_precision(system):
    lti = system("hippo")
    cast = jax.tree.map(lambda x: x.astype(np.complex64 if np.iscomplexobj(x) else np.float32), lti)
    expected = hinf_error(lti, nothing(), form="complex")
    assert hinf_error(cast, nothing(), form="complex") == pytest.approx(expected, rel=1e-4)


def test_bad_arguments(system):
    lti = system("ring")
    with pytest.raises(
        ValueError, match="after must have 2 outputs and 2 inputs, as before, got 1 and 1"
    ):
        hinf_error(lti, nothing(1), form="complex")
    with pytest.raises(ValueError, match="after must be stable"):
        hinf_error(lti, eqx.tree_at(lambda s: s.log_lam, lti, -lti.log_lam), form="complex")
    with pytest.raises(ValueError, match=r"before\.B holds NaN"):
        hinf_error(
            eqx.tree_at(lambda s: s.B, lti, np.full_like(lti.B, np.inf)), lti, form="complex"
        )


@pytest.mark.parametrize("form", ["complex", "real"])
def test_certificates_hold_for_balanced_truncation(kind, form, system):
    lti = system(kind)
    for rank in (1, 6):
        reduced = balanced_truncation(lti, rank, form=form)
        (layer,) = verify(lti, reduced.lti, form=form).layers
        assert layer.holds
        assert layer.rank_after == reduced.rank
        assert layer.floor * (1 - 1e-6) <= layer.error + layer.rounding


def test_a_model_is_verified_layer_by_layer(getkey):
    keys = getkey(), getkey()
    model = {"a": LRU.init(3, 16, key=keys[0]), "b": S5.init(3, 16, key=keys[1])}
    for form in ("complex", "real"):
        small, _ = compress(model, policy=Ranks({"['b']": 5}), method=WhiteNoise(form))
        found = verify(model, small, form=form)
        assert found.holds
        a, b = found.layers
        assert (a.rank_after, b.rank_after) == (16, 5)
        assert a.bound == 0
        assert a.error < 1e-12
        assert 0 < b.floor < b.error < b.bound
    assert str(found).splitlines()[0].split()[:3] == ["layer", "states", "after"]


def test_what_is_no_truncation_does_not_hold(getkey):
    layer, other = LRU.init(3, 8, key=getkey()), LRU.init(3, 8, key=getkey())
    found = verify(layer, other)
    assert not found.holds
    assert "no" in str(found)
    with pytest.raises(ValueError, match=r"`after` must have the layers of `before`, .*got none"):
        verify({"a": layer}, {})


@pytest.mark.parametrize("make", [LRU.init, S5.init])
@pytest.mark.parametrize("decay", [1e-6, 1e-4, 1e-2])
def test_certificates_hold_in_single_precision_next_to_the_circle(make, decay, system, getkey):
    lti = system("ring", n=12)
    slow = np.where(np.arange(12) < 3, decay, 0.3)
    lti = eqx.tree_at(lambda s: s.log_lam, lti, -slow + 1j * lti.log_lam.imag)
    layer = make(2, 12, key=getkey()).from_lti(jax.tree.map(jax.numpy.asarray, lti))
    small, _ = compress(layer, policy=Ranks(7), method=WhiteNoise("complex"))
    (found,) = verify(layer, small, form="complex").layers
    assert found.holds
    assert decay < 1e-2 or found.rounding < 0.1 * found.bound


@pytest.mark.parametrize("field", ["log_lam", "B", "C", "D"])
@pytest.mark.parametrize("measure", [h2_error, hinf_error, verify])
def test_what_is_no_number_has_no_error(measure, field, system):
    lti = system("ring")
    bad = eqx.tree_at(lambda s: getattr(s, field), lti, getattr(lti, field) * np.nan)
    for pair in ((lti, bad), (bad, lti)):
        with pytest.raises(ValueError, match=rf"\.{field} holds NaN or infinity"):
            measure(*pair)
