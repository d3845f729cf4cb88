"""Replays a log: what every entry must add up to.

The ledger runs it over its own entries whenever it is opened, and the auditor over an exported
log: one reading of the rules for both.

    kind      client  charge  details
    open      ""      0       ledger_id, dataset_id, public_key, plan, default_cap
    answers   name    ≥ 0     new: answers stored by this entry
    training  ""      0       run: the reserved DP-SGD run that was used
    cap       name    0       cap: units, or null for the default
    key       ""      0       public_key, endorsement: who signs from this entry on
"""

from dataclasses import dataclass, field

from privacy.budget import BudgetPlan
from privacy.canonical_json import digest, exactly, integer, text
from privacy.composition import DpSgdRun
from privacy.key_history import KeyHistory, SigningKey
from privacy.ledger.chain import NO_PREDECESSOR, NOTHING_NEW, Entry


@dataclass(frozen=True)
class Opening:
    """What entry 0 fixes for the life of a ledger."""

    ledger_id: str
    dataset_id: str
    public_key: bytes
    plan: BudgetPlan
    default_cap: int | None

    def details(self) -> dict[str, object]:
        """The details of the opening entry."""
        return {
            "ledger_id": self.ledger_id,
            "dataset_id": self.dataset_id,
            "public_key": self.public_key.hex(),
            "plan": self.plan.to_json(),
            "default_cap": self.default_cap,
        }

    @classmethod
    def of(cls, entry: Entry) -> "Opening":
        """Reads entry 0. Raises ValueError when it does not open a ledger."""
        if entry.number != 0 or entry.kind != "open" or entry.previous != NO_PREDECESSOR:
            raise ValueError("the first entry does not open a ledger")
        details = exactly(
            entry.details,
            frozenset({"ledger_id", "dataset_id", "public_key", "plan", "default_cap"}),
        )
        try:
            plan = BudgetPlan.from_json(details["plan"])
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"the plan cannot be read: {error!r}") from error
        return cls(
            ledger_id=text(details["ledger_id"]),
            dataset_id=text(details["dataset_id"]),
            public_key=digest(details["public_key"]),
            plan=plan,
            default_cap=_optional_units(details["default_cap"]),
        )


@dataclass
class Accounts:
    """Totals after the entries applied so far, starting with entry 0."""

    opening: Opening
    spent: int = 0
    draws: int = 0
    client_spent: dict[str, int] = field(default_factory=dict)
    caps: dict[str, int | None] = field(default_factory=dict)
    training: list[DpSgdRun] = field(default_factory=list)
    requests: dict[tuple[str, str], int] = field(default_factory=dict)
    new_answers: dict[int, int] = field(default_factory=dict)
    keys: KeyHistory = field(init=False)
    """As the entries name them; `KeyHistory.verify` says whether each was endorsed."""

    def __post_init__(self) -> None:
        opening = self.opening
        self.keys = KeyHistory.starting_with(opening.ledger_id, opening.public_key)

    def cap(self, client: str) -> int | None:
        """The client's own cap, or the default one; None where only the global budget limits."""
        own = self.caps.get(client)
        return self.opening.default_cap if own is None else own

    def reserved_training(self) -> tuple[DpSgdRun, ...]:
        """The plan's DP-SGD runs that no teacher has used yet."""
        left = list(self.opening.plan.training)
        for run in self.training:
            left.remove(run)
        return tuple(left)

    def apply(self, entry: Entry) -> list[str]:
        """Adds one entry, and says what about it contradicts the plan or the totals before it.

        The totals follow the charges themselves and not the totals that the entry claims, except
        after an entry that does not add up: then its claim is taken over, to report a fault once.
        """
        if entry.number == 0:
            return self._no_charge(entry) + self._totals(entry)
        match entry.kind:
            case "answers":
                faults = self._answers(entry)
            case "training":
                faults = self._training(entry) + self._no_charge(entry)
            case "cap":
                faults = self._cap(entry) + self._no_charge(entry)
            case "key":
                faults = self._key(entry) + self._no_charge(entry)
            case "open":
                faults = ["it opens the ledger a second time"]
        return faults + self._totals(entry)

    def _totals(self, entry: Entry) -> list[str]:
        faults = []
        self.spent += entry.charge
        self.draws += entry.draws
        for name, found, claimed in (
            ("charges", self.spent, entry.spent_after),
            ("noise draws", self.draws, entry.draws_after),
        ):
            if found != claimed:
                faults.append(f"its {name} do not add up: {found} and not {claimed}")
        self.spent, self.draws = entry.spent_after, entry.draws_after
        plan = self.opening.plan
        if entry.charge and self.spent > plan.answer_units:
            faults.append(f"it spends {self.spent} of a budget of {plan.answer_units}")
        if entry.draws and self.draws > plan.draws:
            faults.append(f"it uses {self.draws} noise draws of {plan.draws}")
        return faults

    def _answers(self, entry: Entry) -> list[str]:
        faults = self._request(entry)
        if not entry.client:
            faults.append("it names no client")
        try:
            details = exactly(entry.details, frozenset({"new"}))
            new = integer(details["new"])
        except ValueError as error:
            return [*faults, f"its details cannot be read: {error}"]
        if new:
            self.new_answers[entry.number] = new
        if new > entry.releases:
            faults.append(f"it stores {new} releases for {entry.releases} asked")
        if new == 0 and (entry.charge or entry.draws or entry.answers_digest != NOTHING_NEW):
            faults.append("it charges although it stores no new answer")
        total = self.client_spent.get(entry.client, 0) + entry.charge
        self.client_spent[entry.client] = total
        cap = self.cap(entry.client)
        if entry.charge and cap is not None and total > cap:
            faults.append(f"client {entry.client!r} spends {total} of its cap of {cap}")
        return faults

    def _training(self, entry: Entry) -> list[str]:
        faults = self._request(entry)
        try:
            details = exactly(entry.details, frozenset({"run"}))
            run = DpSgdRun.from_json(details["run"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            return [*faults, f"its details cannot be read: {error}"]
        if run not in self.reserved_training():
            return [*faults, "it uses a training run that the plan does not reserve any more"]
        self.training.append(run)
        return faults

    def _cap(self, entry: Entry) -> list[str]:
        try:
            details = exactly(entry.details, frozenset({"cap"}))
            self.caps[entry.client] = _optional_units(details["cap"])
        except ValueError as error:
            return [f"its details cannot be read: {error}"]
        return [] if entry.client else ["it names no client"]

    def _key(self, entry: Entry) -> list[str]:
        try:
            key = SigningKey.from_details(entry.number, entry.details)
        except ValueError as error:
            return [f"its details cannot be read: {error}"]
        if key.public_key in self.keys:
            return ["it hands over to a key that the ledger had before"]
        self.keys = self.keys.followed_by(key)
        return []

    def _request(self, entry: Entry) -> list[str]:
        key = entry.client, entry.request_id
        first = self.requests.setdefault(key, entry.number)
        if first != entry.number:
            return [f"its request id {entry.request_id} was charged before, by entry {first}"]
        return []

    def _no_charge(self, entry: Entry) -> list[str]:
        if entry.charge or entry.draws or entry.answers_digest != NOTHING_NEW:
            return [f"an entry of kind {entry.kind!r} must not charge"]
        return []


def _optional_units(value: object) -> int | None:
    return None if value is None else integer(value)
