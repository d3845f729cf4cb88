"""The student's durable copy of every answer it was given, and of every question under way."""

from ktan.answers.index import DigestRows, different
from ktan.answers.manifest import AnswerManifest
from ktan.answers.requests import PendingRequest
from ktan.answers.rows import AnswerRows
from ktan.answers.store import AnswerStore, read_manifest

__all__ = [
    "AnswerManifest",
    "AnswerRows",
    "AnswerStore",
    "DigestRows",
    "PendingRequest",
    "different",
    "read_manifest",
]
