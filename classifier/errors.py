"""Every exception the classifier raises on purpose."""


class ClassifierError(Exception):
    """Base class: catch this to catch all of them."""


class SchemaError(ClassifierError):
    """A schema file, label or label line does not fit the label schema."""


class BundleError(ClassifierError):
    """A bundle is missing, incomplete, altered or made for another schema."""


class BaseModelError(ClassifierError):
    """A base model cannot be found, fetched or verified; the message says what would help."""


class RuleError(ClassifierError):
    """A rules file is malformed, or RE2 refuses one of its expressions."""


class GoldenCheckFailed(ClassifierError):
    """A bundle answers one of the five statements wrongly and may not serve."""


class ReleaseConflict(ClassifierError):
    """A swap named another serving release than the one that serves (compare-and-swap failed)."""
