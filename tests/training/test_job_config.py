"""Options and configuration as people give them."""

import json
from pathlib import Path

import pytest

from training.jobs.config import BertOptions, ConfigError, JobConfig, option_specs, parse_options


def test_a_form_gets_name_type_bounds_and_help_of_every_option() -> None:
    specs = {spec.name: spec for spec in option_specs("bert")}
    assert specs["epochs"].type is int
    assert (specs["batch_size"].low, specs["batch_size"].high) == (1, 1024)
    assert specs["start_from"].choices == ("serving", "base")
    assert all(spec.help for kind in ("bert", "sft") for spec in option_specs(kind))


def test_values_come_as_strings_from_forms_and_the_command_line() -> None:
    options = parse_options("bert", {"epochs": "4", "learning_rate": "1e-3", "class_weights": "on"})
    assert isinstance(options, BertOptions)
    assert (options.epochs, options.learning_rate, options.class_weights, options.batch_size) == (4, 1e-3, True, 32)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"epochs": "many"}, "epochs is 'many', expected a number"),
        ({"epochs": "2.5"}, "epochs is '2.5', expected a whole number"),
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"learning_rate": "nan"}, "learning_rate is nan, expected a finite number"),
        ({"epochs": "inf"}, "epochs is 'inf', expected a number"),
        ({"batch_size": 10**6}, "batch_size is 1000000, expected at most 1024"),
        ({"start_from": "moon"}, "start_from is 'moon', expected one of serving, base"),
        ({"class_weights": "maybe"}, "class_weights is 'maybe', expected true or false"),
        ({"epoch": 3}, "unknown option 'epoch', expected one of start_from"),
    ],
)
def test_rejects_an_odd_value_by_name(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_options("bert", raw)


def test_rejects_an_unknown_kind() -> None:
    with pytest.raises(ConfigError, match="unknown job 'grpo', expected one of bert, sft"):
        parse_options("grpo", {})


def test_the_configuration_round_trips(tmp_path: Path) -> None:
    config = JobConfig("sft", parse_options("sft", {"epochs": 2}), serving_bundle=tmp_path / "bundle", release="run-7")
    config.write(tmp_path)
    assert JobConfig.read(tmp_path) == config


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "bert", "options": 3}', json.dumps({"kind": "x"})])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json"):
        JobConfig.read(tmp_path)
