"""Options that several studies share, and descriptions of their scaled-down settings."""

from .study import Options

UNCOMPRESSED: Options = {"compression.mode": "none"}
BY_TOLERANCE: Options = {"compression.mode": "tolerance"}
RECORDED: Options = {**BY_TOLERANCE, "compression.calibration": 256}
"""The defaults at the time of the first runs of these studies."""
PAPER: Options = {**RECORDED, "compression.method": "paper", "compression.multiple": 1}

TEN_TIMES_FASTER: Options = {
    "steps": 20_000,
    "optimizer.learning-rate": 4e-3,
    "optimizer.schedule": "constant",
    "optimizer.ssm-factor": 1.0,
    "compression.shrinks": 16,
    "loop.evaluate-every": 2000,
    "loop.checkpoint-every": 5000,
    "loop.log-every": 500,
}
SMNIST_SCALED = (
    "Scaled down: 20 000 steps at a learning rate of 4e-3 instead of 200 000 at 4e-4, both "
    "constant, and 16 shrinks instead of 20, which at this pace come to about the published "
    "states; network, batch, data and full length (784) are the paper's."
)
SHORT: Options = {
    "steps": 4000,
    "loop.evaluate-every": 1000,
    "loop.checkpoint-every": 2000,
    "loop.log-every": 200,
}
SHORT_SCALED = (
    "Scaled down: 4000 steps instead of 200 000, at the small preset's learning rate (1e-2, "
    "cosine) instead of 4e-4; network, batch, data and full length (784) are the paper's."
)
SMALL_SCALED = "Scaled down: network, data and number of steps are those of the small preset."


def fixed(rank: int, **more: object) -> dict[str, object]:
    """Cut every layer to `rank` states; `more` are further options of the compression."""
    named = {f"compression.{name}": value for name, value in more.items()}
    return {"compression.mode": "fixed", "compression.rank": rank, **named}
