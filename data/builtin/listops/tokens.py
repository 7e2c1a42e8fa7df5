"""The language of ListOps: its tokens, the value of an expression, and its files.

Nangia and Bowman, NAACL-SRW 2018, arXiv 1804.06028; Tay et al., ICLR 2021 (Long Range Arena).
"""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from jaxtyping import UInt8

from ...store.raw import Bounded, numbered_lines

VOCABULARY = ("pad", "end", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
"""The token with index i; `pad` fills up a row after `end`."""
SYMBOLS = tuple(f"{word} " for word in VOCABULARY)
"""The text of each token."""
PAD, END, ZERO, MIN, CLOSE = 0, 1, 2, 12, 16
_INDEX = {word: index for index, word in enumerate(VOCABULARY)}
_OPERATIONS = (
    min,
    max,
    lambda values: int(median(values)),
    lambda values: sum(values) % 10,
)


def tokenize(source: str) -> UInt8[np.ndarray, " L"]:
    """The tokens of an expression as the files have it, without an end.

    The parentheses there repeat the structure in binary form and are dropped, as usual. ValueError
    for a word that ListOps does not have.
    """
    words = source.replace("(", " ").replace(")", " ").split()
    try:
        return np.array([_INDEX[word] for word in words], np.uint8)
    except KeyError as error:
        raise ValueError(f"words must be ListOps', got {error.args[0][:40]!r}") from None


def evaluate(tokens: UInt8[np.ndarray, " L"]) -> int:
    """The value of an expression, 0 to 9, computed in one pass with a stack.

    MED is the median, rounded down; SM the sum modulo 10. ValueError for tokens that are not one
    whole expression.
    """
    stack: list[list[int]] = [[]]
    operators: list[int] = []
    for token in tokens.tolist():
        if ZERO <= token < MIN:
            stack[-1].append(token - ZERO)
        elif MIN <= token < CLOSE:
            operators.append(token - MIN)
            stack.append([])
        elif token == CLOSE and operators and stack[-1]:
            values = stack.pop()
            stack[-1].append(_OPERATIONS[operators.pop()](values))
        else:
            raise ValueError(
                f"an expression must be well formed, got {VOCABULARY[token]!r} too early"
            )
    if operators or len(stack[0]) != 1:
        raise ValueError(
            f"an expression must leave 1 value and no open operator, got {len(stack[0])} and "
            f"{len(operators)}"
        )
    return stack[0][0]


def read_tsv(path: Path) -> Iterator[tuple[UInt8[np.ndarray, " L"], int]]:
    """The expressions of a file and their values, recomputed and compared, in the file's order.

    Reads, plain or gzipped, the files of Long Range Arena (a header; expression, tab, value) and
    those of the original authors (no header; value, tab, expression). A byte order mark, and blank
    lines at the end, are left out. ValueError naming the file and the line where one of them is
    damaged.
    """
    for number, line in _lines(path):
        if number == 1 and line == "Source\tTarget":
            continue
        columns = line.split("\t")
        if len(columns) != 2:
            raise ValueError(f"{path}, line {number} must have 2 columns, got {len(columns)}")
        source, value = columns if len(columns[0]) > len(columns[1]) else columns[::-1]
        if len(value) != 1 or value not in "0123456789":
            raise ValueError(
                f"{path}, line {number} must have a value from 0 to 9, got {value[:40]!r}"
            )
        try:
            tokens = tokenize(source)
            worth = evaluate(tokens)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        if worth != int(value):
            raise ValueError(
                f"{path}, line {number} must have the value of its expression, {worth}, got {value}"
            )
        yield tokens, worth


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in numbered_lines(_unpacked(file, path)):
                yield number, line.decode("ascii")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: the gzip data is damaged or cut short after line {number} ({error})"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number} must be plain ASCII ({error})") from error


def _unpacked(file: io.BufferedReader, path: Path) -> Iterable[bytes]:
    if path.suffix != ".gz":
        return file
    return io.BufferedReader(Bounded(gzip.GzipFile(fileobj=file), path))
