"""Numbers as people write them on the command line: 0.5% and 2x."""

from typing import TYPE_CHECKING, Annotated

from tyro.constructors import PrimitiveConstructorSpec


def share(text: str) -> float:
    """0.005 from "0.5%" or "0.005". ValueError for anything else."""
    text = text.strip()
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def factor(text: str) -> float | None:
    """2.0 from "2x" or "2", None from "None". ValueError for anything else."""
    text = text.strip()
    return None if text.lower() == "none" else float(text.removesuffix("x"))


if TYPE_CHECKING:
    Share = float
    Factor = float | None
else:
    Share = Annotated[
        float,
        PrimitiveConstructorSpec(
            nargs=1,
            metavar="SHARE",
            instance_from_str=lambda words: share(words[0]),
            is_instance=lambda value: isinstance(value, float | int),
            str_from_instance=lambda value: [f"{value:g}"],
        ),
    ]
    Factor = Annotated[
        float | None,
        PrimitiveConstructorSpec(
            nargs=1,
            metavar="FACTOR",
            instance_from_str=lambda words: factor(words[0]),
            is_instance=lambda value: value is None or isinstance(value, float | int),
            str_from_instance=lambda value: [f"{value:g}" if value is not None else "None"],
        ),
    ]
