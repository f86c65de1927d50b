import pytest

from classifier.rules import RuleSet


@pytest.fixture(scope="session")
def rules() -> RuleSet:
    return RuleSet.load()
