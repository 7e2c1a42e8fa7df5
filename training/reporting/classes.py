"""The confusion table of a report."""

from .history import History
from .page import escape, section, table

MOST = 40
"""Classes, or labels, of which a table is shown."""
CASES = ("true positives", "false positives", "false negatives", "true negatives")


def classes_section(history: History) -> str:
    """The table of the test split: sequences by their class and the answer; of several labels, how
    often each was found. Empty without counts, or with too many classes for a page."""
    counts = (history.summary.get("tables") or {}).get("test") or []
    if not counts or len(counts) > MOST:
        return ""
    names = history.summary.get("output_names") or [str(k) for k in range(len(counts))]
    if history.get("kind") == "multilabel":
        head, heading = ("label", *CASES), "Labels on the test split"
        said = "Test sequences, by whether they have a label and whether the model predicts it."
    else:
        head = ("true class", *names)
        heading = "Classes on the test split"
        said = "Test sequences, by their class (rows) and by the predicted class (columns)."
    rows = [(name, *row) for name, row in zip(names, counts, strict=True)]
    drawn = table(head, rows, numeric=tuple(range(1, len(head))))
    return section(heading, f'<div class="scroll">{drawn}</div><p>{escape(said)}</p>')
