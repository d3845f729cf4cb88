"""What one training charge pays for: a reserved run, and the weights that came of it.

Copies of an unfinished training draw different noise in the steps that they have left: finished
twice, they are two releases. So a charge names the finished weights, and pays for no others. It
names them by a digest under the ledger's secret: training is deterministic but for its noise, and
a plain digest would be a release. The digest stays in the table of requests: neither the log nor a
receipt holds it.
"""

from dataclasses import dataclass

from privacy import canonical_json
from privacy.composition import DpSgdRun


@dataclass(frozen=True)
class TrainingCharge:
    """weights: `Ledger.mac` of the finished weights; None in a charge of an older program."""

    run: DpSgdRun
    weights: str | None

    def content(self) -> bytes:
        """As the ledger stores it, in the place of a request's content digest."""
        run = self.run.to_json()
        if self.weights is None:
            return canonical_json.encode(run)
        return canonical_json.encode({"run": run, "weights": self.weights})

    def accepted(self) -> tuple[bytes, ...]:
        """Contents of an earlier charge that pays for this one: its own, then an older program's.

        An older program's charge names the run alone, and so pays for whatever weights.
        """
        older = TrainingCharge(self.run, None)
        return (self.content(),) if self.weights is None else (self.content(), older.content())

    @classmethod
    def from_content(cls, content: bytes) -> "TrainingCharge":
        """Raises ValueError or KeyError on anything that `content` does not write."""
        value = canonical_json.decode(content)
        if "run" not in value:
            return cls(DpSgdRun.from_json(value), None)
        fields = canonical_json.exactly(value, frozenset({"run", "weights"}))
        return cls(DpSgdRun.from_json(fields["run"]), canonical_json.text(fields["weights"]))
