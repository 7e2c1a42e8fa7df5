"""Artificial texts on artificial topics, for a matching task like AAN.

Each topic has 12 words of its own, and there are 240 words that all texts use. A text is about one
topic: a share of its words, at random, are the topic's. Two texts belong together when they are
about the same topic; half of the pairs are.
"""

from collections.abc import Iterator

import numpy as np

TOPIC_WORDS, COMMON_WORDS = 12, 240


class TopicTexts:
    """The words, from the seed alone; the pairs, from the seed and a number for the split.

    `topical` is the share of a text's words that are its topic's.
    """

    def __init__(self, seed: int, topics: int, topical: float):
        rng = np.random.default_rng([seed, 0])
        words: dict[bytes, None] = {}  # in order, none twice
        while len(words) < COMMON_WORDS + topics * TOPIC_WORDS:
            letters = rng.integers(ord("a"), ord("z") + 1, rng.integers(3, 9), dtype=np.uint8)
            words[letters.tobytes()] = None
        every = list(words)
        self.seed, self.topical = seed, topical
        self.common = every[:COMMON_WORDS]
        self.topics = [
            every[start : start + TOPIC_WORDS]
            for start in range(COMMON_WORDS, len(every), TOPIC_WORDS)
        ]

    def pairs(self, count: int, length: int, stream: int) -> Iterator[tuple[bytes, bytes, int]]:
        """`count` pairs of texts of up to `length` bytes and no less than a quarter of it."""
        rng = np.random.default_rng([self.seed, 1, stream])
        labels = rng.permutation(np.arange(count) % 2)
        topics = len(self.topics)
        for label in labels:
            first = int(rng.integers(topics))
            other = first if label else int(first + rng.integers(1, topics)) % topics
            one, two = (
                self._text(topic, int(rng.integers(length // 4, length + 1)), rng)
                for topic in (first, other)
            )
            yield one, two, int(label)

    def _text(self, topic: int, length: int, rng: np.random.Generator) -> bytes:
        count = length // 4 + 1  # no word is shorter than four bytes with its space
        own = rng.random(count) < self.topical
        which = rng.random(count)
        words = (
            self.topics[topic][int(w * TOPIC_WORDS)] if o else self.common[int(w * COMMON_WORDS)]
            for o, w in zip(own, which, strict=True)
        )
        return b" ".join(words)[:length]
