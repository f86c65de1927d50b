"""Multiplying the bank: labels stay, held-out texts stay out, and every operation keeps to its rule."""

import json
from collections import Counter
from io import StringIO
from pathlib import Path
from random import Random

import pytest
from django.core.management import call_command

from classifier.schema import load_schema
from training.corpus.bank import BankRow, read_bank
from training.corpus.build import build_corpus, read_keys
from training.corpus.build import main as build_main
from training.corpus.generate import MAX_POSTS, MAX_VARIANTS, Options, Variant, describe, generate, measure_variants
from training.corpus.generate import main as generate_main
from training.corpus.grammar import surface
from training.corpus.grammar.compose import (
    Pools,
    is_padding,
    is_spliceable,
    join,
    join_labels,
    known_labels,
    splice,
)
from training.corpus.grammar.nearness import measure
from training.corpus.grammar.slots import swap_slots
from training.corpus.grammar.surface import Material
from training.corpus.rows import Row, read_rows, text_key

CALM = {"emotion": "neutral", "sentiment": "neutral", "stress": "low", "risk": "none"}
HAPPY = {"emotion": "positive", "sentiment": "positive", "stress": "low", "risk": "none"}
WORN = {"emotion": "stress", "sentiment": "negative", "stress": "high", "risk": "low"}
GRIEF = {"emotion": "sadness", "sentiment": "negative", "stress": "medium", "risk": "low"}
DANGER = {"emotion": "self_harm_high", "sentiment": "negative", "stress": "high", "risk": "high"}


def item(text: str, labels: dict[str, str], functionality: str = "F03", pair: str | None = None) -> BankRow:
    row = Row(f"bank-{text_key(text)[:16]}", text, labels, f"bank:{functionality}")
    return BankRow(row, functionality, pair, "train")


def material(text: str, labels: dict[str, str] | None = None, vocabulary: frozenset[str] = frozenset()) -> Material:
    return Material(text, labels or CALM, vocabulary)


PLAIN = [item("The lift goes to five, then stairs.", CALM), item("Shop opens at nine", CALM), item("Two eggs.", CALM)]
PLAIN.append(item("My sister plays the trombone.", CALM))
RISK = item("I want to kill myself and I can't stop it", DANGER, "F06")


@pytest.fixture(scope="module")
def bank() -> list[BankRow]:
    return read_bank()


@pytest.fixture(scope="module")
def variants(bank: list[BankRow]) -> list[Variant]:
    return generate(bank, Options(1500))


def test_is_deterministic_by_seed(bank: list[BankRow], variants: list[Variant]) -> None:
    assert generate(reversed(bank), Options(1500)) == variants
    assert generate(bank, Options(1500, seed=1)) != variants


def test_makes_the_number_asked_for_and_no_text_twice(bank: list[BankRow], variants: list[Variant]) -> None:
    texts = [variant.row.text for variant in variants]
    assert len(texts) == len(set(texts)) == len({variant.row.id for variant in variants}) == 1500
    assert not set(texts) & {other.row.text for other in bank}
    assert len({text_key(text) for text in texts}) == 1500


def test_multiplies_training_rows_only(bank: list[BankRow], variants: list[Variant]) -> None:
    train = {other.row.id for other in bank if other.split == "train"}
    assert {part for variant in variants for part in variant.parts} <= train


def test_keeps_the_labels_of_the_bank_row(bank: list[BankRow], variants: list[Variant]) -> None:
    labels = {other.row.id: known_labels(other) for other in bank}
    for variant in variants:
        if variant.operation.startswith("join"):
            assert variant.row.labels == join_labels([labels[part] for part in variant.parts])
        else:
            assert variant.row.labels == variant.origin.row.labels


def test_makes_no_held_out_text(bank: list[BankRow], variants: list[Variant]) -> None:
    held_out = {text_key(variant.row.text) for variant in variants[:200]}
    again = generate(bank, Options(1500), held_out)
    assert not held_out & {text_key(variant.row.text) for variant in again}


def test_makes_no_text_of_another_bank_row() -> None:
    left = item("See you on Monday", HAPPY, "F01", "p")
    others = [item(f"See you on {day}", CALM) for day in ("Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")]
    made = generate([left, *others], Options(30))
    own = {text_key(row.row.text): row for row in (left, *others)}
    assert made
    assert all(own.get(text_key(variant.row.text), variant.origin) is variant.origin for variant in made)


def test_caps_the_variants_and_posts_of_one_bank_row(bank: list[BankRow]) -> None:
    made = generate([other for other in bank if other.functionality in ("F03", "F06")], Options(100_000))
    assert max(Counter(variant.origin.row.id for variant in made).values()) == MAX_VARIANTS
    posts = Counter(variant.origin.row.id for variant in made if variant.operation.startswith("splice"))
    assert 0 < max(posts.values()) <= MAX_POSTS


def test_names_operation_functionality_and_bank_row_as_source(variants: list[Variant]) -> None:
    for variant in variants:
        kind, operation, functionality, origin = variant.row.source.split(":")
        assert (kind, operation) == ("generated", variant.operation)
        assert (functionality, origin) == (variant.origin.functionality, variant.origin.row.id)
        assert variant.row.weight == 0.5


def test_no_operation_stands_for_danger(variants: list[Variant]) -> None:
    for step in ("swap", "slang", "typo", "leet", "prefix", "case", "ending"):
        risks = [variant.row.labels["risk"] for variant in variants if step in variant.operation.split("+")]
        assert 0.15 < sum(risk in ("medium", "high") for risk in risks) / len(risks) < 0.6, step
    kinds = Counter(variant.operation.split("+")[0] for variant in variants)
    assert kinds["splice"] == kinds["join"] > 0


@pytest.mark.parametrize(
    "text",
    [
        "It may rain and we will march",  # words that are months elsewhere
        "finally Friday",  # the day itself is the message
        "back on Sunday roast duty",
        "on Monday we plan, on Thursday we act",  # the order of two days
        "the cat is out of the bag, our cat",
        "my wife is my wedding planner",
        "not very happy",  # the negated word
        "so sad that I could burst",
        "Nancy will leeds the way",
    ],
)
def test_leaves_a_slot_word_in_another_sense(text: str) -> None:
    assert all(swap_slots(text, Random(seed)) is None for seed in range(20))


def test_swaps_a_word_everywhere_and_keeps_case_and_article() -> None:
    assert {swap_slots("Ask Mr Osei. Mr Osei's tea.", Random(seed)) for seed in range(40)} == {
        f"Ask Mr {name}. Mr {name}'s tea." for name in ("Okafor", "Adeyemi", "Ahmed", "Evans", "Iqbal")
    }
    assert swap_slots("see you on friday", Random(0)) == "see you on {}".format(
        str(swap_slots("see you on Friday", Random(0))).split()[-1].lower()
    )
    assert {str(swap_slots("a flatmate", Random(seed))) for seed in range(20)} == {"a housemate", "a roommate"}


def test_typos_never_touch_a_negation_nor_make_another_word() -> None:
    text = "nothing, nobody, without, never, cannot, couldn't, doesn't, hardly"
    assert all(surface.make_typos(material(text), Random(seed)) is None for seed in range(200))
    all_slips = {surface.make_typos(material("angel"), Random(seed)) for seed in range(500)}
    assert "angle" in all_slips
    assert "angle" not in {
        surface.make_typos(material("angel", vocabulary=frozenset({"angle"})), Random(seed)) for seed in range(500)
    }


def test_makes_at_most_two_typos() -> None:
    text = "yesterday evening several neighbours brought enormous saucepans full of steaming noodles upstairs again"
    for seed in range(100):
        made = str(surface.make_typos(material(text), Random(seed)))
        assert sum(old != new for old, new in zip(text.split(), made.split(), strict=True)) <= 2


def test_obfuscates_short_texts_and_never_a_negation() -> None:
    for seed in range(100):
        made = surface.obfuscate(material("I would never harm nobody"), Random(seed))
        assert made is not None
        assert "never" in made
        assert "nobody" in made
    assert surface.obfuscate(material("word " * 13), Random(0)) is None


def test_contractions_go_both_ways_and_keep_questions_english() -> None:
    assert surface.toggle_contractions(material("I don't know, I'm lost"), Random(0)) == "I do not know, I am lost"
    assert surface.toggle_contractions(material("I do not know"), Random(0)) == "I don't know"
    assert surface.toggle_contractions(material("Don't you dare"), Random(0)) is None
    assert surface.toggle_contractions(material("yes I am"), Random(0)) is None


def test_emoji_fit_the_emotion_and_the_sentiment() -> None:
    fitting = surface.load_surface()["emoji"]["positive"]["signs"]
    for seed in range(50):
        made = str(surface.add_emoji(material("we won", HAPPY), Random(seed)))
        assert any(made.endswith(sign) for sign in fitting)
    assert surface.add_emoji(material("we won", CALM), Random(0)) is None
    assert surface.add_emoji(material("we won 🎉", HAPPY), Random(0)) is None
    assert surface.add_emoji(material("we won", {**HAPPY, "sentiment": "negative"}), Random(0)) is None


def test_endings_do_not_doubt_joy_and_shout_only_strong_feeling() -> None:
    happy = {surface.change_ending(material("We won.", HAPPY), Random(seed)) for seed in range(40)}
    calm = {surface.change_ending(material("We won.", CALM), Random(seed)) for seed in range(40)}
    assert happy == {"We won", "We won!!"}
    assert calm == {"We won", "We won..."}
    assert surface.change_ending(material("We won?"), Random(0)) is None


def test_prefix_lowers_a_common_word_and_keeps_a_name() -> None:
    vocabulary = frozenset({"the"})
    assert str(surface.add_prefix(material("The tap drips", vocabulary=vocabulary), Random(0))).endswith(
        "the tap drips"
    )
    assert str(surface.add_prefix(material("Priya rang", vocabulary=vocabulary), Random(0))).endswith("Priya rang")


def test_splices_a_risk_sentence_with_its_own_labels() -> None:
    post = splice(RISK, Pools.of([*PLAIN, RISK]), Random(0))
    assert post is not None
    assert dict(post.labels) == DANGER
    assert post.parts[1] == RISK.row.id
    assert RISK.row.text in post.text
    assert not post.text.startswith(RISK.row.text)


@pytest.mark.parametrize(
    ("text", "functionality"),
    [
        ("My friend says 'I want to die'", "F08"),
        ("My character wants to die and I do too", "F14"),
        ("My brother wants to kill himself", "F06"),
        ("It would be better if I was dead", "F08"),
        ("I have packed the bag and shut the gate", "F07"),
        ("I want to die " + "and sleep " * 12, "F06"),
    ],
    ids=["quote", "fiction", "other-person", "points-back", "veiled", "long"],
)
def test_does_not_splice_what_needs_its_surroundings(text: str, functionality: str) -> None:
    assert not is_spliceable(item(text, DANGER, functionality))


def test_padding_is_plain_and_no_side_of_a_pair() -> None:
    assert is_padding(PLAIN[0])
    assert not is_padding(item("The train leaves at nine", CALM))
    assert not is_padding(item("The lift goes to five", CALM, pair="f03-1"))
    assert not is_padding(item("We won the cup", HAPPY))


def test_joined_labels_are_the_severest_and_undecided_where_feelings_compete() -> None:
    assert join_labels([CALM, WORN, CALM]) == WORN
    assert join_labels([GRIEF, CALM, {**GRIEF, "stress": "high"}]) == {**GRIEF, "stress": "high"}
    assert join_labels([HAPPY, CALM, WORN]) is None
    assert join_labels([GRIEF, WORN, CALM]) is None


def test_joins_harmless_rows_only() -> None:
    pools = Pools.of(PLAIN)
    worn = item("I have had enough of this printer", WORN, "F04")
    post = join(worn, Pools.of([*PLAIN, worn]), Random(1))
    assert post is not None
    assert dict(post.labels) == WORN
    assert join(RISK, pools, Random(1)) is None


def test_near_duplicates_of_source_sibling_and_stranger_are_told_apart() -> None:
    base = "the kettle in the kitchen takes three minutes to boil"
    found = measure(
        [base, base + "!", base + "?", "bins go out on thursday"], [base, base, "x", "y"], ["a", "a", "b", "c"]
    )
    assert (found.rows, found.near_source, found.near_sibling, found.near_stranger) == (4, 2, 2, 3)


def test_generate_prints_counts_and_nearness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    assert generate_main(["--count", "60", "--out", str(out)]) == 0
    assert len(read_rows(out)) == 60
    printed = capsys.readouterr().out
    assert printed.startswith("60 rows of ")
    assert "near-duplicates (3-gram Jaccard >= 0.8) of 60 rows:" in printed


def test_description_counts_every_operation(variants: list[Variant]) -> None:
    text = describe(variants)
    assert f"  splice {sum(v.operation.startswith('splice') for v in variants)} (100%)" in text
    assert measure_variants(variants).rows == 1500


def build_generated(out: Path, *excluded: Path) -> list[Row]:
    flags = [flag for path in excluded for flag in ("--exclude", str(path))]
    assert build_main(["--out", str(out), "--generate", "300", *flags]) == 0
    rows = {split: read_rows(out / f"{split}.jsonl") for split in ("train", "val", "test")}
    assert not any(row.source.startswith("generated:") for split in ("val", "test") for row in rows[split])
    return [row for row in rows["train"] if row.source.startswith("generated:")]


def test_build_makes_no_variant_of_an_excluded_text_nor_an_excluded_variant(
    tmp_path: Path, bank: list[BankRow]
) -> None:
    before = build_generated(tmp_path / "before")
    origin = before[0].source.rpartition(":")[2]
    text = next(other.row.text for other in bank if other.row.id == origin)
    excluded = tmp_path / "eval.jsonl"
    excluded.write_text(
        "".join(json.dumps({"text": t}) + "\n" for t in [text, *(row.text for row in before[1:])]), "utf-8"
    )
    after = build_generated(tmp_path / "after", excluded)
    assert len(after) == len(before) == 300
    assert not any(row.source.endswith(origin) for row in after)
    assert not read_keys([excluded]) & {text_key(row.text) for row in after}


def test_build_generates_nothing_by_default(bank: list[BankRow]) -> None:
    corpus = build_corpus(Path(__file__).parents[2] / "training/corpus/bank", None, {})
    assert not any(row.source.startswith("generated") for rows in corpus.splits.values() for row in rows)


def test_command_writes_conversations_beside_the_plain_rows(tmp_path: Path) -> None:
    out, printed = tmp_path / "corpus", StringIO()
    call_command("build_corpus", "--out", str(out), "--generate", "50", stdout=printed)
    rows = read_rows(out / "train.jsonl")
    chats = [json.loads(line) for line in (out / "chat" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(chats) == len(rows)
    assert (out / "chat" / "val.jsonl").is_file()
    for row, chat in zip(rows, chats, strict=True):
        system, user, answer = chat["messages"]
        assert [turn["role"] for turn in (system, user, answer)] == ["system", "user", "assistant"]
        assert user["content"] == row.text
        assert load_schema().parse_line(answer["content"]) == row.labels
    assert f"chat/train.jsonl: {len(chats)} conversations" in printed.getvalue()
