"""Adapters for public labelled sets, read from a local folder that nobody needs to have.

The folder (an argument, or HEED_DATA_DIR) holds one folder for each set, with `train.jsonl` and `dev.jsonl`; a row is
`{"text", "source", "labels": {original}, "mapped": {"emotion"?, "sentiment"?, "stress"?, "risk"?}}`. Only `mapped` is
read. A release that is shipped learns from OPEN_SETS alone; the others serve measurements and experiments.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.corpus.rows import Label, Row, RowError, iter_jsonl, text_key

Terms = Literal["open", "share-alike", "research", "unstated"]

# Some negative emotion, the set does not say which: one of the two that are not self-harm.
EITHER_NEGATIVE: Mapping[str, Label] = {"negative": "stress|sadness"}

# The forum or a hashtag decided these labels. As sets (`low|medium|high` against `none|low`) they overlap, so a model
# satisfies them by answering `low` everywhere. They become a stated prior instead: of posts in a forum for people who
# think of suicide half are taken to be high, a third medium; of the others three quarters have no distress.
FORUM_PRIOR: Mapping[str, Label] = {
    "low|medium|high": {"low": 0.2, "medium": 0.3, "high": 0.5},
    "none|low": {"none": 0.75, "low": 0.25},
}


@dataclass(frozen=True, slots=True)
class PublicSet:
    """`renames`: dimension -> value of the set -> label of ours. `max_words`: longer texts are left out."""

    name: str
    terms: Terms
    licence: str
    citation: str
    max_words: int = 120
    renames: Mapping[str, Mapping[str, Label]] = field(default_factory=dict)

    @property
    def is_weak(self) -> bool:
        """Nobody read the texts for these risk labels: they are scored by ranking, never by accuracy."""
        return self.renames.get("risk") is FORUM_PRIOR


# cssrs: a label is about the whole text (of a user: about all posts). A text that would be cut has lost its label.
SETS: Mapping[str, PublicSet] = {
    item.name: item
    for item in (
        PublicSet(
            "goemotions",
            "open",
            "Apache-2.0",
            "Demszky et al. (2020), GoEmotions, ACL 2020",
            renames={"emotion": EITHER_NEGATIVE},
        ),
        PublicSet("sad", "open", "MIT", "Mauriello et al. (2021), SAD, CHI EA 2021"),
        PublicSet(
            "cssrs_posts", "open", "CC BY 4.0", "Gaur et al. (2019), WWW 2019; Gaur et al. (2021), PLOS ONE", 160
        ),
        PublicSet("cssrs_users", "open", "CC BY 4.0", "Gaur et al. (2019), WWW 2019", 160),
        PublicSet("vader", "open", "MIT", "Hutto and Gilbert (2014), VADER, ICWSM 2014"),
        PublicSet("dreaddit", "unstated", "none with the data", "Turcan and McKeown (2019), Dreaddit, LOUHI 2019", 200),
        PublicSet(
            "sdcnl",
            "unstated",
            "none with the data",
            "Haque et al. (2021), SDCNL, ICANN 2021",
            200,
            {"risk": FORUM_PRIOR},
        ),
        PublicSet(
            "suicidewatch_5k",
            "share-alike",
            "CC BY-SA 4.0, not verified",
            "Komati (2021), Suicide and Depression Detection, Kaggle",
            200,
            {"risk": FORUM_PRIOR},
        ),
        PublicSet(
            "suicidal_intention_9119",
            "unstated",
            "none stated",
            "used in Balakrishnan et al. (2025), PeerJ Computer Science 11:e3239",
            renames={"risk": FORUM_PRIOR},
        ),
        PublicSet(
            "twitter_suicide_1787",
            "unstated",
            "none stated",
            "Suicidal Ideation Twitter Dataset, Kaggle",
            renames={"risk": FORUM_PRIOR},
        ),
        PublicSet(
            "carer_emotion",
            "research",
            "educational and research use",
            "Saravia et al. (2018), CARER, EMNLP 2018",
            renames={"emotion": EITHER_NEGATIVE},
        ),
        PublicSet(
            "tweeteval_emotion",
            "research",
            "research use",
            "Barbieri et al. (2020), TweetEval; Mohammad et al. (2018), SemEval-2018 Task 1",
            renames={"emotion": EITHER_NEGATIVE},
        ),
        PublicSet(
            "tweeteval_sentiment",
            "research",
            "research use",
            "Barbieri et al. (2020), TweetEval; Rosenthal et al. (2017), SemEval-2017 Task 4",
        ),
        PublicSet("sst", "research", "none stated, research use", "Socher et al. (2013), EMNLP 2013"),
    )
}
"""A set of which only the sealed test rows exist (t_sid) has nothing to adapt."""

OPEN_SETS: Mapping[str, PublicSet] = {name: item for name, item in SETS.items() if item.terms == "open"}


def public_data_dir() -> Path | None:
    """The folder that HEED_DATA_DIR names, or None."""
    raw = os.environ.get("HEED_DATA_DIR")
    return Path(raw).expanduser() if raw else None


def read_public(name: str, data_dir: Path, *, split: str = "train") -> list[Row]:
    """The usable rows of one set, partial labels kept partial, repeats left out. Raises RowError."""
    if name not in SETS:
        raise RowError(f"unknown public set {name!r}, expected one of {', '.join(SETS)}")
    path = data_dir / name / f"{split}.jsonl"
    if not path.is_file():
        raise RowError(f"{path} is not there: put the set into the data folder, or leave it out")
    rows: dict[str, Row] = {}
    for row in _iter_usable(SETS[name], path):
        rows.setdefault(text_key(row.text), row)
    return list(rows.values())


def _iter_usable(item: PublicSet, path: Path) -> Iterator[Row]:
    for where, raw in iter_jsonl(path):
        mapped: Any = raw.get("mapped")
        if not mapped:
            continue
        labels = {
            dimension: item.renames.get(dimension, {}).get(value, value) for dimension, value in dict(mapped).items()
        }
        found = {"id": f"{item.name}-{text_key(str(raw.get('text')))[:16]}", "text": raw.get("text"), "labels": labels}
        row = Row.from_dict(found | {"source": item.name}, f"{item.name}/{where}")
        if len(row.text.split()) <= item.max_words:
            yield row
