"""The meanings of the states of optax and optax.contrib, by the names of their classes. `gradient`
refers to the input of a transformation. In a chain after one that `rescales`, the inputs are
updates, and `compress.optimizer.transport` carries them as such.
"""

from .meanings import SCALES, Declaration


def _declared(**fields: str) -> Declaration:
    return Declaration(fields, rescales=bool(SCALES & set(fields.values())))


def _signs(**fields: str) -> Declaration:
    """For a transformation without squares whose output is independent of the gradients' scale."""
    return Declaration(fields, rescales=True)


def _moments(*gradients: str, squares: tuple[str, ...] = (), **fields: str) -> Declaration:
    """A state with these fields of gradients and of squares, and a count."""
    count = {"count": "scalar"}
    return _declared(
        **(count | dict.fromkeys(gradients, "gradient") | dict.fromkeys(squares, "square") | fields)
    )


def _scalars(*fields: str, **others: str) -> Declaration:
    return _declared(**(dict.fromkeys(fields, "scalar") | others))


_ADAM = _moments("mu", squares=("nu",))
_NORMS = "keeps distances and norms that belong to the parameters' own coordinates"
_PRODUCTS = "keeps products of gradients and parameters, in the parameters' own coordinates"
_MOMO = dict.fromkeys(("barf", "gamma", "lb", "count"), "scalar")
_LINE_SEARCH = _scalars("learning_rate", "info", value="loss", grad="reset")

WRAPPERS: dict[str, Declaration] = {
    "MaskedNode": _declared(),
    "MaskedState": _declared(inner_state="nested"),
    "PartitionState": _declared(inner_states="nested"),
    "MultiStepsState": _scalars(
        "mini_step", "gradient_step", "skip_state", acc_grads="gradient", inner_opt_state="nested"
    ),
    "InjectHyperparamsState": _scalars("count", "hyperparams", inner_state="nested"),
    "InjectStatefulHyperparamsState": _scalars(
        "count", "hyperparams", "hyperparams_states", inner_state="nested"
    ),
    "ConditionallyTransformState": _scalars("step", inner_state="nested"),
    "ConditionallyMaskState": _scalars("step", inner_state="nested"),
    "ApplyIfFiniteState": _scalars(
        "notfinite_count", "last_finite", "total_notfinite", inner_state="nested"
    ),
    "LookaheadState": _scalars("steps_since_sync", fast_state="nested"),
    "LookaheadParams": _declared(fast="parameter", slow="parameter"),
    "SplitRealAndImaginaryState": _declared(inner_state="nested"),
    "MonitorState": _declared(measurements="reset", measure_states="nested"),
    "SAMState": _scalars(
        "steps_since_sync", opt_state="nested", adv_state="nested", cache="displaced"
    ),
    "ScheduleFreeState": _scalars(
        "b1",
        "weight_sum",
        "step_count",
        "max_lr",
        base_optimizer_state="nested",
        z="displaced",
    ),
    "MechanicState": Declaration(
        {"base_optimizer_state": "nested", "x0": "start"}
        | dict.fromkeys(("count", "r", "m", "v", "s"), "scalar"),
        rescales=True,
        refused=_NORMS,
    ),
}
"""States that hold other states, or that mark a masked part."""

PLAIN: dict[str, Declaration] = {
    "EmptyState": _declared(),
    "ScaleByScheduleState": _scalars("count"),
    "WrappedScheduleState": _scalars("count"),
    "WeightDecaySchedule": _scalars("count"),
    "AddNoiseState": _scalars("count", "rng_key"),
    "DifferentiallyPrivateAggregateState": _scalars("rng_key"),
    "HutchinsonState": _scalars("key"),
    "ZeroNansState": _scalars("found_nan"),
    "ReduceLROnPlateauState": _scalars(
        "scale", "best_value", "plateau_count", "cooldown_count", "count", "avg_value"
    ),
    "SnapshotState": _declared(measurement="reset"),
    "ScaleByBacktrackingLinesearchState": _LINE_SEARCH,
    "ScaleByZoomLinesearchState": _LINE_SEARCH,
    "TraceState": _declared(trace="gradient"),
    "ApplyEvery": _moments("grad_acc"),
    "ScaleByOptimisticGradientState": _scalars("is_initial_step", previous_gradient="gradient"),
    "AccumulateAvgUpdatesState": _scalars("micro_step", "ready", avg_grad="gradient"),
    "EmaState": Declaration({"count": "scalar", "ema": "gradient"}, alone=False),
}
"""States of transformations whose output is linear in their input."""

SCALING: dict[str, Declaration] = {
    "ScaleByAdamState": Declaration(_ADAM.fields, rescales=True, shared=True),
    "ScaleByBeliefState": Declaration(_ADAM.fields, rescales=True, lags=True),
    "ScaleByAmsgradState": _moments("mu", squares=("nu", "nu_max")),
    "ScaleByRssState": _declared(sum_of_squares="square_sum"),
    "ScaleByRmsState": _declared(nu="square"),
    "ScaleByRmsWithCountState": _moments(squares=("nu",)),
    "ScaleByRStdDevState": _declared(mu="gradient", nu="square"),
    "ScaleByRStdDevWithCountState": _ADAM,
    "ScaleByLionState": _signs(count="scalar", mu="gradient"),
    "ScaleByAdaDeltaState": _declared(e_g="square", e_x="step_square"),
    "ScaleByAdanState": _scalars("t", m="gradient", v="gradient", n="square", g="gradient"),
    "ScaleByRpropState": _declared(step_sizes="step", prev_updates="update"),
    "ScaleBySM3State": _declared(mu="axis_square", nu="update"),
    "ScaleByNovogradState": _scalars("count", mu="update", nu="norm_square"),
    "FactoredState": Declaration(
        {"count": "scalar", "v_row": "row_square", "v_col": "column_square", "v": "square"},
        rescales=True,
        relative=True,
    ),
    "ScaleByDistanceOverGradientsState": _scalars(
        "max_dist", grad_sum_of_squares="norm_square", init_params="start"
    ),
    "PerElementMeanAndSumSqDiffGradsState": _scalars(
        "micro_step", "ready", mean_grads="gradient", sum_sq_diff_grads="square"
    ),
    "PerElementMeanAndVarianceEMAState": _scalars(
        "count", "ema_decay", mean_grads_ema="gradient", variance_grads_ema="square"
    ),
    "ScaleByAdemamixState": _moments("m1", "m2", squares=("nu",), count_m2="scalar"),
    "ScaleBySimplifiedAdEMAMixState": _scalars("t", m="gradient", n="square"),
    "SophiaState": _moments("mu", nu="curvature", hessian_fn_state="nested"),
    "MuonState": _signs(count="scalar", mu="gradient", ns_coeffs="scalar"),
    "MadgradState": Declaration(
        {"count": "scalar", "grad_sum_sq": "square", "s": "gradient", "x0": "start"},
        rescales=True,
        refused="counts all steps from the start in the parameters' own coordinates",
    ),
    "DoGState": Declaration(
        {
            "is_init_step": "scalar",
            "init_params": "start",
            "max_dist": "scalar",
            "sum_sq_norm_grads": "scalar",
        },
        rescales=True,
        refused=_NORMS,
    ),
    "DoWGState": Declaration(
        {"init_params": "start", "weighted_sq_norm_grads": "scalar", "estim_sq_dist": "scalar"},
        rescales=True,
        refused=_NORMS,
    ),
    "ProdigyState": _moments(
        "exp_avg",
        "grad_sum",
        squares=("exp_avg_sq",),
        params0="start",
        estim_lr="scalar",
        numerator_weighted="scalar",
    ),
    "DAdaptAdamWState": _moments(
        "exp_avg",
        "grad_sum",
        squares=("exp_avg_sq",),
        estim_lr="scalar",
        numerator_weighted="scalar",
    ),
    "MomoState": Declaration({"exp_avg": "gradient", **_MOMO}, rescales=True, refused=_PRODUCTS),
    "MomoAdamState": Declaration(
        {"exp_avg": "gradient", "exp_avg_sq": "square", **_MOMO}, rescales=True, refused=_PRODUCTS
    ),
    "COCOBState": Declaration(
        {
            "init_particles": "start",
            "cumulative_gradients": "gradient",
            "scale": "maximum",
            "subgradients": "maximum",
            "reward": "gradient",
        },
        rescales=True,
        refused="keeps rewards that belong to the parameters' own coordinates",
    ),
    "ScaleByLBFGSState": Declaration(
        {
            "count": "scalar",
            "params": "parameter",
            "updates": "gradient",
            "diff_params_memory": "reset",
            "diff_updates_memory": "reset",
            "weights_memory": "scalar",
        },
        rescales=True,
        refused="keeps past steps that belong to the parameters' own coordinates",
        restarts=True,
    ),
    "GaLoreState": _scalars("count", base_optimizer_state="nested", projector="reset"),
}
"""States of transformations that divide by the gradients' scale, or whose output are steps."""

OPTAX: dict[str, Declaration] = WRAPPERS | PLAIN | SCALING
