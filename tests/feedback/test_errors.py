from __future__ import annotations

import inspect

import pytest

import training.errors
from classifier import client
from feedback import errors
from feedback.errors import FOREIGN, FeedbackError, describe


def own_errors() -> list[type[FeedbackError]]:
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, FeedbackError) and value is not FeedbackError
    ]


@pytest.mark.parametrize("kind", own_errors())
def test_every_own_error_has_its_status_and_sentence(kind: type[FeedbackError]) -> None:
    problem = describe(kind("what would help"))
    assert problem is not None
    assert (problem.status, problem.code, problem.detail) == (kind.status, kind.code, "what would help")
    assert 400 <= problem.status < 500


def test_codes_are_distinct() -> None:
    codes = [kind.code for kind in own_errors()] + [code for _, _, code in FOREIGN]
    assert len(set(codes)) == len(codes)


def test_every_refusal_of_training_is_in_the_table() -> None:
    refusals = [
        value for value in vars(training.errors).values() if inspect.isclass(value) and issubclass(value, Exception)
    ]
    assert refusals
    assert all(describe(kind("why")) for kind in refusals)


def test_inference_that_does_not_answer_is_a_503() -> None:
    problem = describe(client.InferenceUnavailable("it is being loaded"))
    assert problem is not None
    assert (problem.status, problem.detail) == (503, "it is being loaded")


def test_a_fault_of_ours_is_not_dressed_up() -> None:
    assert describe(ZeroDivisionError()) is None
