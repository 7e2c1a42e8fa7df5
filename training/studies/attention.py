"""Linear attention on recall and on text: whole, cut, or small from the start."""

from .options import SMALL_SCALED, UNCOMPRESSED, fixed
from .study import Options, Study, Variant

AT_ONCE: Options = {"shrinks": 1, "start": 0.0, "window": 0.1}
LATER: Options = {"shrinks": 1, "start": 0.5, "window": 0.1}


def _variants(K: int) -> tuple[Variant, ...]:
    """Those of Gated DeltaNet with K keys, and Mamba-2 and S5 of as many states beside it."""
    variants = [
        Variant("whole", UNCOMPRESSED),
        Variant("auto", {"compression.mode": "auto"}),
    ]
    for r in (K // 2, K // 4):
        variants += [
            Variant(f"to {r} in the first tenth", fixed(r, **AT_ONCE)),
            Variant(f"to {r} at half time", fixed(r, **LATER)),
            Variant(f"to {r} in the first tenth, selected", fixed(r, maps=False, **AT_ONCE)),
            Variant(f"to {r} afterwards", fixed(r), cut_from="whole"),
            Variant(f"to {r} afterwards, selected", fixed(r, maps=False), cut_from="whole"),
            Variant(f"{r} from the start", {**UNCOMPRESSED, "layer.d-state": r}),
        ]
    for model, how in (("mamba2", {"maps": True}), ("mamba2", {"maps": False}), ("s5", {})):
        r = K // 2
        whole, said = f"{model}, whole", ", selected" if how.get("maps") is False else ""
        if whole not in {variant.name for variant in variants}:
            variants.append(Variant(whole, UNCOMPRESSED, model=model, reference=whole))
        variants.append(
            Variant(
                f"{model}, to {r} in the first tenth{said}",
                fixed(r, **how, **AT_ONCE),
                model=model,
                reference=whole,
            )
        )
    return tuple(variants)


ATTENTION = (
    Study(
        name="linear-attention",
        question=(
            "Associative recall needs a state that stores all pairs. What does it cost Gated "
            "DeltaNet to keep half of its keys, or a quarter, if the others are cut in the first "
            "tenth of training, at half time, or after training, and if the model never has "
            "them? What does the automatic mode do? Mamba-2 and S5 are compared."
        ),
        model="gated_deltanet",
        task="mqar",
        reference="whole",
        options={"layer.d-state": 32},
        scaled_down=SMALL_SCALED,
        variants=_variants(32),
    ),
    Study(
        name="linear-attention-text",
        question="What do the same cuts cost on text?",
        model="gated_deltanet",
        task="charlm",
        reference="whole",
        options={"layer.d-state": 32},
        scaled_down=SMALL_SCALED,
        variants=_variants(32),
    ),
)
