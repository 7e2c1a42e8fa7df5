"""Random ListOps expressions by the published procedure, many at a time.

The procedure (Long Range Arena, after Nangia and Bowman 2018) grows one tree: above the greatest
depth a node is an operator with probability 1/4, else a digit; an operator has 2 to 10 arguments;
kind, number and digits are uniform. Trees outside the range of lengths are discarded. The procedure
here is the same, but a whole forest grows level by level, and a tree is discarded as soon as it is
too long.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt8

from .tokens import CLOSE, MIN, ZERO, evaluate

_OPERATOR_SHARE = 0.25
_TREES = 20_000  # that grow at once: their nodes just fit into a cache
_ROUNDS = 100  # without a single expression, after which the search ends


@dataclass(frozen=True)
class _Level:
    """The nodes at one depth; the arguments of each operator stand together on the next level."""

    owner: Int[np.ndarray, " n"]
    """The tree that a node is in."""
    operator: Bool[np.ndarray, " n"]
    arity: Int[np.ndarray, " operators"]

    def of(self, trees: Bool[np.ndarray, " trees"]) -> "_Level":
        """The nodes of some trees, which are numbered anew."""
        mine = trees[self.owner]
        number = np.cumsum(trees) - 1
        return _Level(
            number[self.owner[mine]],
            self.operator[mine],
            self.arity[mine[self.operator]],
        )


@dataclass(frozen=True)
class Expressions:
    """Concatenated expressions without end tokens, and their values."""

    tokens: UInt8[np.ndarray, " total"]
    lengths: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]

    def split(self) -> list[UInt8[np.ndarray, "_"]]:
        """The tokens of each expression."""
        return np.split(self.tokens, np.cumsum(self.lengths)[:-1])


@dataclass(frozen=True)
class ExpressionJob:
    """Expressions of one kind, in chunks for `workers.draw_in_parallel`."""

    seed: int
    min_length: int
    max_length: int
    max_depth: int
    max_args: int

    def too_few(self, found: str) -> ValueError:
        """The error for settings that do not allow enough expressions."""
        return ValueError(
            f"min_length={self.min_length}, max_length={self.max_length}, "
            f"max_depth={self.max_depth}, max_args={self.max_args} allow too few "
            f"expressions: {found}"
        )

    def draw(self, index: int, count: int) -> Expressions:
        """The first `count` expressions of chunk `index`.

        Every value is computed twice, up the tree and by `evaluate` along the tokens.
        """
        rng = np.random.default_rng([self.seed, index])
        parts: list[Expressions] = []
        rounds = 0
        while sum(len(part.labels) for part in parts) < count:
            if rounds == _ROUNDS and not parts:
                raise self.too_few(f"{_ROUNDS * _TREES} trees gave none")
            rounds += 1
            levels = grow_trees(
                rng, _TREES, self.min_length, self.max_length, self.max_depth, self.max_args
            )
            if levels[0].owner.size:
                parts.append(write_expressions(rng, levels))
        lengths = np.concatenate([part.lengths for part in parts])[:count]
        labels = np.concatenate([part.labels for part in parts])[:count]
        tokens = np.concatenate([part.tokens for part in parts])[: lengths.sum()]
        drawn = Expressions(tokens, lengths, labels)
        for number, (expression, label) in enumerate(zip(drawn.split(), labels, strict=True)):
            if evaluate(expression) != label:
                raise RuntimeError(
                    f"expression {number} of chunk {index} is worth {evaluate(expression)} by its "
                    f"tokens, but {label} by its tree: a bug, please report it"
                )
        return drawn


def grow_trees(
    rng: np.random.Generator,
    trees: int,
    min_length: int,
    max_length: int,
    max_depth: int,
    max_args: int,
) -> list[_Level]:
    """The levels of those of `trees` random trees with min_length < length < max_length.

    The length counts a digit as 1 and an operator as 2, for itself and its `]`.
    """
    owner = np.arange(trees)
    length = np.zeros(trees, int)
    levels: list[_Level] = []
    for depth in range(1, max_depth + 1):
        if depth < max_depth:
            operator = rng.random(len(owner)) < _OPERATOR_SHARE
        else:
            operator = np.zeros(len(owner), bool)
        above = owner[operator]
        arity = rng.integers(2, max_args + 1, len(above))
        length += np.bincount(owner, minlength=trees) + np.bincount(above, minlength=trees)
        levels.append(_Level(owner, operator, arity))
        owner = np.repeat(above, arity)
        if depth > max_depth // 2:  # a tree that is too long already need not grow
            lives = length < max_length
            if not lives.all():
                levels = [level.of(lives) for level in levels]
                owner = (np.cumsum(lives) - 1)[owner[lives[owner]]]
                length = length[lives]
                trees = len(length)
    kept = (length > min_length) & (length < max_length)
    return [level.of(kept) for level in levels]


def write_expressions(rng: np.random.Generator, levels: list[_Level]) -> Expressions:
    """Trees with digits and kinds of operators drawn, written out from left to right."""
    symbols, values, sizes = [], [], []
    below_values, below_sizes = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for level in reversed(levels):
        symbol = rng.integers(0, 10, len(level.owner)).astype(np.int64)
        kind = rng.integers(0, 4, len(level.arity))
        value, size = symbol.copy(), np.ones(len(level.owner), np.int64)
        symbol += ZERO
        if len(level.arity):
            first = np.cumsum(level.arity) - level.arity
            symbol[level.operator] = MIN + kind
            value[level.operator] = _apply(kind, below_values, first, level.arity)
            size[level.operator] = 2 + np.add.reduceat(below_sizes, first)
        symbols.append(symbol)
        values.append(value)
        sizes.append(size)
        below_values, below_sizes = value, size
    symbols.reverse()
    sizes.reverse()
    lengths = sizes[0]
    tokens = np.empty(int(lengths.sum()), np.uint8)
    place = np.cumsum(lengths) - lengths
    for depth, level in enumerate(levels):
        tokens[place] = symbols[depth]
        opened = place[level.operator]
        tokens[opened + sizes[depth][level.operator] - 1] = CLOSE
        if len(level.arity):
            below = sizes[depth + 1]
            before = np.cumsum(below) - below
            first = np.cumsum(level.arity) - level.arity
            place = before + np.repeat(opened + 1 - before[first], level.arity)
    return Expressions(tokens, lengths.astype(np.int32), values[-1].astype(np.int32))


def _apply(
    kind: Int[np.ndarray, " n"],
    values: Int64[np.ndarray, " arguments"],
    first: Int[np.ndarray, " n"],
    arity: Int[np.ndarray, " n"],
) -> Int64[np.ndarray, " n"]:
    """The values of operators whose arguments begin at `first` of `values`."""
    ordered = values[np.lexsort((values, np.repeat(np.arange(len(first)), arity)))]
    median = (ordered[first + (arity - 1) // 2] + ordered[first + arity // 2]) // 2
    total = np.add.reduceat(values, first) % 10
    smallest, largest = ordered[first], ordered[first + arity - 1]
    return np.choose(kind, [smallest, largest, median, total])
