"""Check a new rules version and make it the part of a candidate bundle. Trains nothing.

    python -m training.jobs.rules --run-dir DIR

Reads DIR/config.json and the rules files in DIR/rules; writes DIR/part and, last, DIR/manifest.json. As after every
job, `training.jobs.assemble` then puts the part into the serving bundle's place and judges the result by the gates.
"""

import shutil
import sys
from pathlib import Path

from classifier.rules.engine import RuleSet
from training.jobs.config import ConfigError, RulesOptions
from training.jobs.runtime import Job, hash_folder, run_job

MAX_NAMED = 5


def main(job: Job) -> None:
    if job.is_complete:
        return
    options = job.config.options
    if not isinstance(options, RulesOptions):
        raise ConfigError(f"config.json is of a {job.config.kind} run, not of a rules run")
    job.events.stage("save rules")
    rules = check_rules(job.run_dir / "rules")
    part = job.run_dir / "part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(job.run_dir / "rules", part, copy_function=shutil.copyfile)
    job.events.log(f"rules {rules.version}: {len(rules.rules)} rules, every example as it says")
    job.complete(
        {
            "arm": "rules",
            "content_hash": hash_folder(part),
            "rules_version": rules.version,
            "base_rules_version": options.base_rules_version,
            "rules": len(rules.rules),
        }
    )


def check_rules(folder: Path) -> RuleSet:
    """Raises RuleError for files that are no rules, ConfigError for rules that do not do what their examples say."""
    rules = RuleSet.load(folder)
    failures = list(rules.check_examples())
    if failures:
        named = "; ".join(f"{item.file}: {item.rule}: {item.problem}" for item in failures[:MAX_NAMED])
        raise ConfigError(f"{len(failures)} examples fail: {named}. Mend the rules or the examples.")
    return rules


if __name__ == "__main__":
    sys.exit(run_job(main, "Check a new rules version and make it the part of a bundle."))
