from feedback.models.annotations import Annotation, Assignment
from feedback.models.audit import AuditEvent
from feedback.models.documents import MAX_TEXT_CHARACTERS, Document, IntakeBatch, Prediction, hash_text
from feedback.models.moderation import CaseDecision, RiskCase
from feedback.models.notices import Notice
from feedback.models.people import ApiKey, Invitation, Person, Role, hash_token
from feedback.models.rules import RuleChange, RuleDraft, RuleTryout

__all__ = [
    "MAX_TEXT_CHARACTERS",
    "Annotation",
    "ApiKey",
    "Assignment",
    "AuditEvent",
    "CaseDecision",
    "Document",
    "IntakeBatch",
    "Invitation",
    "Notice",
    "Person",
    "Prediction",
    "RiskCase",
    "Role",
    "RuleChange",
    "RuleDraft",
    "RuleTryout",
    "hash_text",
    "hash_token",
]
