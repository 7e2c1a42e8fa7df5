"""Hankel singular values and reductions, ours and others': accuracy and time on the same systems.

    python benchmarks/numerics.py
    pip install control pymor slycot      # optional: they join the table

Accuracy is measured against the truth set in `../shared/truth`, time on random systems of the sizes
that layers have; the H2 error of truncations and of H2-optimal reductions on the truth set and on
new layers. (pyMOR's H2-optimal reductors are for continuous time.) Writes
`results/numerics.json` (with versions and hardware) and `results/numerics.md` (the tables).
"""

import argparse
import contextlib
import importlib
import json
import os
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for everybody: ours sees to it by itself

import jax
import jax.numpy as jnp
import numpy as np

from compress import (
    Rank,
    WhiteNoise,
    balanced_truncation,
    compress,
    h2_error,
    hankel_singular_values,
    hinf_error,
    optimal_reduction,
)
from training.reporting.environment import describe_environment
from zoo import LRU, S5, DiagonalLTI

ROOT = Path(__file__).parents[1]
TRUTH = ROOT.parent / "shared" / "truth"
LEVELS = (1e-4, 1e-8, 1e-12, 1e-30)


def real_matrices(lti: DiagonalLTI):
    """The real map u -> Re(C x) as real (A, B, C); real eigenvalues with real B, C stay as is."""
    lam, B, C = np.exp(lti.log_lam), np.asarray(lti.B), np.asarray(lti.C)
    if max(np.abs(x.imag).max() for x in (lam, B, C)) < 1e-15:  # exp(i pi) is not quite real
        return np.diag(lam.real), B.real, C.real
    A = np.block([[np.diag(lam.real), -np.diag(lam.imag)], [np.diag(lam.imag), np.diag(lam.real)]])
    return A, np.concatenate([B.real, B.imag]), np.concatenate([C.real, -C.imag], axis=1)


def by_eigenvalues(lti: DiagonalLTI, rank: int):
    """sqrt(eig(P Q)) from closed-form Gramians in float64: the textbook's formula, HSVs only."""
    lam, B, C = np.exp(lti.log_lam), lti.B, lti.C
    P = (B @ B.conj().T) / (1 - lam[:, None] * lam.conj())
    Q = (C.conj().T @ C) / (1 - lam.conj()[:, None] * lam)
    return root(np.linalg.eigvals(P @ Q))


def root(eigenvalues):
    """Descending square roots; rounding makes small ones negative: zero."""
    return np.sort(np.sqrt(np.maximum(eigenvalues.real, 0)))[::-1]


def ours(form: str) -> Callable:
    return lambda lti, rank: balanced_truncation(lti, rank, form=form).sigma


def slicot(lti: DiagonalLTI, rank: int):
    slycot = importlib.import_module("slycot")
    A, B, C = real_matrices(lti)
    n, m, p = len(A), B.shape[1], len(C)
    return slycot.ab09ad("D", "B", "N", n, m, p, A, B, C, nr=min(2 * rank, n))[-1]


def pymor(lti: DiagonalLTI, rank: int):
    iosys = importlib.import_module("pymor.models.iosys")
    reductor = importlib.import_module("pymor.reductors.bt")
    importlib.import_module("pymor.core.logger").set_log_levels({"pymor": "ERROR"})
    model = iosys.LTIModel.from_matrices(*real_matrices(lti), sampling_time=1)
    reductor.BTReductor(model).reduce(min(2 * rank, model.order - 1))
    return model.hsv()


def control(lti: DiagonalLTI, rank: int):
    """Its Hankel singular values are for continuous time; with its Gramians, by its formula."""
    package = importlib.import_module("control")
    system = package.ss(*real_matrices(lti), 0, dt=1)
    product = package.gram(system, "o") @ package.gram(system, "c")
    return root(np.linalg.eigvals(product))


METHODS: dict[str, tuple[Callable, str]] = {
    "ours, complex": (ours("complex"), "complex"),
    "sqrt(eig(PQ))": (by_eigenvalues, "complex"),
    "ours, real": (ours("real"), "real"),
    "SLICOT ab09ad (slycot)": (slicot, "real"),
    "pyMOR": (pymor, "real"),
    "python-control": (control, "real"),
}


def truth_systems():
    """Name, system, known HSVs and the forms that they are of; the truncations that are known."""
    for path in sorted(TRUTH.glob("*.npz")):
        with np.load(path) as file:
            z = {key: file[key] for key in file.files}
        log_lam, D = np.log(z["lam"]), np.zeros_like(z["D"])
        lti = DiagonalLTI(log_lam, z["B"], z["C"], D)
        known = z["hsv"][: z["hsv_certified"]]
        cuts = list(zip(z["r"].tolist(), z["err_hinf"].tolist(), strict=True))
        yield path.stem, lti, known, "complex", cuts
        k = int(z["conj_pairs"])
        if k > 0:
            half = DiagonalLTI(log_lam[:k], z["B"][:k], 2 * z["C"][:, :k], D)
            yield f"{path.stem}, real map", half, known, "real", []
        elif k == 0:
            yield f"{path.stem}, real map", lti, known, "real", []


def relative_errors(sigma, known) -> dict[str, float | None]:
    """Largest relative error of the HSVs above each level of the first; None if not a number."""
    error = np.full(known.size, np.nan)
    found = np.asarray(sigma)[: known.size]
    error[: found.size] = np.abs(found / known[: found.size] - 1)
    result = {}
    for level in LEVELS:
        worst = float(np.max(error[known > level * known[0]]))
        result[f"{level:.0e}"] = worst if np.isfinite(worst) else None
    return result


def accuracy() -> list[dict]:
    rows = []
    for name, lti, known, form, cuts in truth_systems():
        for method, (run, of_form) in METHODS.items():
            if of_form == form:
                if method.startswith("ours"):  # the truncation's own stop at 1e-20 or so
                    run = lambda lti, _, form=form: hankel_singular_values(lti, form=form)  # noqa: E731
                sigma = attempt(run, lti, max(1, lti.d_state // 2))
                if sigma is not None:
                    rows.append({"system": name, "method": method, **relative_errors(sigma, known)})
        worst = 0.0
        for rank, error in cuts:
            measured = hinf_error(
                lti, balanced_truncation(lti, rank, form="complex").lti, form="complex"
            )
            worst = max(worst, abs(measured / error - 1))
        if cuts:
            rows[-2]["hinf_error"] = worst
    return rows


def random_system(n: int, channels: int, decays: bool) -> DiagonalLTI:
    """A ring of eigenvalues; or, if `decays`, poles on a real interval."""
    rng = np.random.default_rng(0)
    log_lam = -np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), n)) + 0j
    if not decays:
        log_lam += 1j * rng.uniform(-np.pi, np.pi, n)
    B, C = (rng.standard_normal((2, *s)) for s in ((n, channels), (channels, n)))
    return DiagonalLTI(log_lam, B[0] + 1j * B[1], C[0] + 1j * C[1], np.zeros(channels))


def written_back(lti: DiagonalLTI, form: str) -> Callable:
    """`compress` of a float32 layer: to double precision, HSVs, truncation, and back."""
    layer = LRU.init(lti.B.shape[1], 1, key=jax.random.key(0)).from_lti(
        DiagonalLTI(*(jnp.asarray(x) for x in (lti.log_lam, lti.B, lti.C, lti.D)))
    )

    def run(_, rank: int):
        return jax.block_until_ready(compress(layer, policy=Rank(rank), method=WhiteNoise(form)))

    return run


SPEED = [
    # n, channels, rank, decays, what to time
    (128, 32, 32, False, list(METHODS)),
    (512, 128, 128, False, ["ours, complex", "sqrt(eig(PQ))", "ours, real"]),
    (2048, 8, 64, True, ["ours, complex"]),
]


def speed(repeats: int) -> list[dict]:
    rows = []
    for n, channels, rank, decays, methods in SPEED:
        lti = random_system(n, channels, decays)
        size = {"n": n, "channels": channels, "rank": rank, "decays": decays}
        jobs = {method: METHODS[method][0] for method in methods}
        if n <= 512:
            jobs["ours, complex, HSVs alone"] = lambda lti, rank: hankel_singular_values(
                lti, form="complex"
            )
            jobs["ours, real, HSVs alone"] = lambda lti, rank: hankel_singular_values(
                lti, form="real"
            )
        for form in ("complex", "real"):
            jobs[f"ours, {form}, written back to a layer"] = written_back(lti, form)
        for method, run in jobs.items():
            if attempt(run, lti, rank) is None:
                continue
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                run(lti, rank)
                seconds.append(time.perf_counter() - start)
            timing = {"best": min(seconds), "median": float(np.median(seconds))}
            rows.append({**size, "method": method, **timing})
    return rows


def nearest() -> list[dict]:
    """H2 errors of both reductions of real maps, as shares of the system's norm."""
    systems = {
        name: lti for name, lti, _, form, _ in truth_systems() if form == "real" and lti.d_state > 1
    }
    for layer in (LRU, S5):
        new = layer.init(8, 256, key=jax.random.key(0)).to_lti()
        systems[f"{layer.__name__}, 256 states, 8 channels"] = new
    rows = []
    for name, lti in systems.items():
        nothing = DiagonalLTI(lti.log_lam[:1], lti.B[:1] * 0, lti.C[:, :1] * 0, lti.D)
        norm, n = h2_error(lti, nothing), lti.d_state
        for rank in sorted({max(1, n // 16), max(1, n // 8), max(1, n // 4)}):
            truncated = balanced_truncation(lti, rank)
            start = time.perf_counter()
            reduced = optimal_reduction(lti, rank)
            seconds = time.perf_counter() - start
            rows.append(
                {
                    "system": name,
                    "n": n,
                    "rank": rank,
                    "truncated": h2_error(lti, truncated.lti) / norm,
                    "optimal": h2_error(lti, reduced.lti) / norm,
                    "seconds": seconds,
                }
            )
    return rows


def attempt(run: Callable, lti: DiagonalLTI, rank: int):
    """The singular values; None where the package is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run(lti, rank)
    except ModuleNotFoundError:
        return None


def tables(content: dict) -> str:
    def number(x):
        return "no number" if x is None else f"{x:.0e}"

    lines = [
        "Largest relative error of the Hankel singular values above a level of the first:",
        "",
        "| system | method | " + " | ".join(f"> {level:.0e}" for level in LEVELS) + " |",
        "|---|---|" + "---|" * len(LEVELS),
    ]
    for row in content["accuracy"]:
        cells = [number(row[f"{level:.0e}"]) for level in LEVELS]
        lines.append(f"| {row['system']} | {row['method']} | " + " | ".join(cells) + " |")
    worst = max(
        (row["hinf_error"] for row in content["accuracy"] if "hinf_error" in row), default=0
    )
    lines += [
        "",
        f"H-infinity errors of our truncations: the known ones within {worst:.0e}, relative.",
        "",
        "HSVs and truncation together, after compilation, one BLAS thread (python-control and "
        "sqrt(eig(PQ)): HSVs alone):",
        "",
        "| n | inputs = outputs | rank | method | best, s | median, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["speed"]:
        n = f"{row['n']}, HSVs decay" if row["decays"] else row["n"]
        lines.append(
            f"| {n} | {row['channels']} | {row['rank']} | {row['method']} "
            f"| {row['best']:.3f} | {row['median']:.3f} |"
        )
    lines += [
        "",
        "H2 error, as a share of the norm, of real maps truncated and reduced H2-optimally:",
        "",
        "| system | states | kept | truncated | H2-optimal | s |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["nearest"]:
        lines.append(
            f"| {row['system']} | {row['n']} | {row['rank']} | {row['truncated']:.2e} "
            f"| {row['optimal']:.2e} | {row['seconds']:.1f} |"
        )
    environment = content["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in content["peers"].items())
    lines += [
        "",
        f"{environment['processor']}, {environment['cores']} cores (load average before the "
        f"timing {content['load_average']:.1f}), jax "
        f"{environment['versions']['jax']}, numpy {environment['versions']['numpy']}"
        f"{', ' + versions if versions else ''}. Made by `benchmarks/numerics.py`.",
        "",
    ]
    return "\n".join(lines)


PARTS = ("accuracy", "nearest", "speed")


def peers() -> dict[str, str]:
    found = {}
    for name in ("control", "pymor", "slycot"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, help="keep the others' numbers")
    options = parser.parse_args()
    path = ROOT / "results" / "numerics.json"
    content = json.loads(path.read_text()) if options.only else {}
    content |= {"environment": describe_environment(), "peers": peers()}
    parts = PARTS if options.only is None else (options.only,)
    if "accuracy" in parts:
        content["accuracy"] = accuracy()
    if "nearest" in parts:
        content["nearest"] = nearest()
    if "speed" in parts:
        content["load_average"] = os.getloadavg()[0]
        content["speed"] = speed(options.repeats)
    (ROOT / "results").mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    (ROOT / "results" / "numerics.md").write_text(tables(content))
    print(tables(content))


if __name__ == "__main__":
    main()
