from classifier.schema import load_schema
from tests.training.toyruns import GLAD, SAD
from training.corpus.rows import Row
from training.jobs.samples import SHOWN, cost_of, pick_samples

SCHEMA = load_schema()
HIGH = {"risk": "high"}


def rows(count: int) -> list[Row]:
    return [Row(f"r{place:02d}", f"text {place}", HIGH, "bank:T") for place in range(count)]


def test_a_text_that_cannot_be_scored_costs_as_much_as_the_worst_answer() -> None:
    assert (
        cost_of(HIGH, {}, SCHEMA)
        == cost_of(HIGH, {"risk": "none"}, SCHEMA)
        > cost_of(HIGH, {"risk": "medium"}, SCHEMA)
        > 0
    )


def test_worse_ones_come_first_and_the_furthest_first_among_them() -> None:
    before = [HIGH, HIGH, {"risk": "none"}, HIGH]
    after = [{"risk": "medium"}, {"risk": "none"}, HIGH, HIGH]
    samples = pick_samples(rows(4), before, after, SCHEMA)
    assert (samples["rows"], samples["better"], samples["worse"]) == (4, 1, 2)
    assert [sample["row"] for sample in samples["shown"]] == ["r01", "r00", "r02"]


def test_no_text_is_kept_and_the_list_is_short() -> None:
    many = rows(50)
    samples = pick_samples(many, [{"risk": "none"}] * 50, [HIGH] * 50, SCHEMA)
    assert (samples["better"], len(samples["shown"])) == (50, SHOWN)
    assert "text" not in str(samples)


def test_what_nobody_knows_moves_nothing() -> None:
    unknown = [Row("r", "x", {"risk": {"low": 0.5, "none": 0.5}}, "bank:T")]
    assert pick_samples(unknown, [GLAD], [SAD], SCHEMA)["shown"] == []
