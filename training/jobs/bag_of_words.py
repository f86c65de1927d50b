"""The baseline that every ablation carries: words and letter n-grams into a logistic regression.

Part of the report, never of a bundle: it is fitted anew on the rows that the release was trained on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion

from classifier.schema import Dimension, load_schema
from training.corpus.rows import Row, likeliest

WORDS, LETTERS = (1, 2), (3, 5)
"""n-grams of words, and of letters within words."""
MAX_FEATURES = 60_000
"""Of each kind, the most frequent ones."""
STRENGTH = 4.0
"""C of the logistic regression: a weaker pull to zero than scikit-learn's 1, as is usual for tf-idf."""
MAX_STEPS = 300


class BagOfWords:
    """Probabilities for every dimension. A dimension of which the rows know fewer than two values has none."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = len(rows)
        # Plain tf-idf: other people would take this first, so it stands as they would take it.
        self._features = FeatureUnion(
            [
                ("words", TfidfVectorizer(ngram_range=WORDS, sublinear_tf=True, max_features=MAX_FEATURES)),
                (
                    "letters",
                    TfidfVectorizer(
                        analyzer="char_wb", ngram_range=LETTERS, sublinear_tf=True, max_features=MAX_FEATURES
                    ),
                ),
            ]
        )
        table: Any = self._features.fit_transform([row.text for row in rows])
        self._models = {
            dimension.name: model
            for dimension in load_schema().dimensions
            if (model := _fit(table, rows, dimension)) is not None
        }

    def score(self, texts: Sequence[str]) -> list[dict[str, dict[str, float]]]:
        """Per text: dimension -> value -> probability."""
        scored: list[dict[str, dict[str, float]]] = [{} for _ in texts]
        if not texts:
            return scored
        table: Any = self._features.transform(texts)
        for name, model in self._models.items():
            values = load_schema()[name].names
            for found, row in zip(scored, model.predict_proba(table), strict=True):
                seen = dict(zip(model.classes_, row.tolist(), strict=True))
                found[name] = {value: float(seen.get(value, 0.0)) for value in values}
        return scored


def _fit(table: Any, rows: Sequence[Row], dimension: Dimension) -> LogisticRegression | None:
    """Rows that stand for one value alone count, by their weight."""
    known = [(place, value) for place, row in enumerate(rows) if (value := likeliest(row.labels.get(dimension.name)))]
    if len({value for _, value in known}) < 2:
        return None
    places = np.array([place for place, _ in known])
    weights = np.array([rows[place].weight for place in places])
    model = LogisticRegression(C=STRENGTH, max_iter=MAX_STEPS, class_weight="balanced")
    model.fit(table[places], [value for _, value in known], sample_weight=weights)
    return model
