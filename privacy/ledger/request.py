"""A request for answers, made ready by its caller so that the transaction has little to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from privacy.ledger.chain import answers_digest
from privacy.ledger.settlement import PendingAnswer


@dataclass(frozen=True)
class Fresh:
    """What a request adds to the ledger. new: key → payload, in storing order."""

    new: Mapping[bytes, bytes]
    charge: int
    draws: int
    digest: bytes

    @classmethod
    def of(cls, answers: Mapping[bytes, PendingAnswer]) -> "Fresh":
        """All of `answers`, by key."""
        new = {key: answer.payload for key, answer in answers.items()}
        return cls(
            new,
            sum(answer.charge for answer in answers.values()),
            sum(answer.draws for answer in answers.values()),
            answers_digest(new.items()),
        )


@dataclass(frozen=True)
class Request:
    """Who asks for which answers. keys: one per answer, in the order asked, repeats included.

    pending: key → answer; the first, where a key occurs twice. known: keys that the caller found
    stored.
    """

    client: str
    request_id: str
    content_digest: bytes
    teacher_version: str
    keys: Sequence[bytes]
    pending: Mapping[bytes, PendingAnswer]
    known: Sequence[bytes]
    all_new: Fresh

    @classmethod
    def of(
        cls,
        client: str,
        request_id: str,
        content_digest: bytes,
        pending: Sequence[PendingAnswer],
        teacher_version: str,
    ) -> "Request":
        """Counts and hashes what the request costs if none of it is stored."""
        keys = [answer.key for answer in pending]
        answers = dict(zip(keys, pending, strict=True))
        if len(answers) < len(keys):
            # Of two answers with one key the first is kept.
            answers.update(zip(reversed(keys), reversed(pending), strict=True))
        known = [key for key, answer in answers.items() if answer.stored]
        fresh = Fresh.of(answers)
        return cls(client, request_id, content_digest, teacher_version, keys, answers, known, fresh)

    def among(self, stored: Mapping[bytes, bytes]) -> Fresh:
        """What the request adds where these answers are stored already."""
        if stored.keys().isdisjoint(self.pending):
            return self.all_new
        return Fresh.of({key: item for key, item in self.pending.items() if key not in stored})
