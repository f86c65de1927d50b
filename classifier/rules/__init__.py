"""Rules with the highest precedence: text in, evidence and a risk floor out, in microseconds."""

from classifier.rules.engine import DATA_DIR, ExampleFailure, RuleSet, RuleVerdict
from classifier.rules.patterns import Rule

__all__ = ["DATA_DIR", "ExampleFailure", "Rule", "RuleSet", "RuleVerdict"]
