"""Every way to falsify a log, what an auditor holds against it, and what must be said of it.

Entries: 0 open, 1 alice r1, 2 training, 3 bob r2, 4 cap, 5 alice r3, 6 alice r4, 7 bob r5.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.audit.violations import ViolationKind
from privacy.ledger import Ledger, PendingAnswer
from privacy.ledger.chain import Entry, entry_line, head_line
from privacy.ledger.keys import LedgerKeys
from privacy.receipts import Receipt, SignedHead, sign, sign_together
from tests.privacy.audit.audited import Case, dump, known

Evidence = dict[str, Any]
Falsified = tuple[list[bytes], Evidence]


@dataclass(frozen=True)
class Tampering:
    """`how` makes a false log, and what others hold of the true one (arguments of `check`).

    kind, entry, words: a violation that must be found. path: only a receipt's path to the signed
    root was touched; a signature that does not hold cannot say what became of it.
    """

    name: str
    how: Callable[[Case, Path], Falsified]
    kind: ViolationKind
    entry: int | None
    words: str
    path: bool = False


def _edited(case: Case, _: Path) -> Falsified:
    return case.edited(3, client="alice"), {}


def _edited_and_hashed(case: Case, _: Path) -> Falsified:
    lines = case.edited(3, client="alice")
    entry = Entry.from_json(json.loads(lines[4])["entry"])
    lines[4] = entry_line(entry.canonical(), entry.hash())
    return lines, {}


def _dropped(case: Case, _: Path) -> Falsified:
    return case.lines[:4] + case.lines[5:], {}


def _dropped_and_renumbered(case: Case, _: Path) -> Falsified:
    lines = list(case.lines)
    for place in range(5, 9):
        value = json.loads(lines[place])
        value["entry"]["number"] -= 1
        entry = Entry.from_json(value["entry"])
        lines[place] = entry_line(entry.canonical(), entry.hash())
    return lines[:4] + lines[5:], {}


def _repeated(case: Case, _: Path) -> Falsified:
    return [*case.lines[:5], case.lines[4], *case.lines[5:]], {}


def _reordered(case: Case, _: Path) -> Falsified:
    lines = list(case.lines)
    lines[4], lines[6] = lines[6], lines[4]
    return lines, {}


def _cut_before_its_head(case: Case, _: Path) -> Falsified:
    return [*case.lines[:-3], case.lines[-1]], {}


def _cut_with_its_head(case: Case, _: Path) -> Falsified:
    return case.lines[:-3], {}


def _older(case: Case) -> list[bytes]:
    """Signed and whole, but not the newest: nothing in it tells."""
    lines = [*case.lines[:3], head_line(case.heads[0])]
    assert case.check(lines).sound
    return lines


def _older_against_a_head(case: Case, _: Path) -> Falsified:
    return _older(case), {"heads": [(Path("kept.json"), case.heads[-1])]}


def _older_against_receipts(case: Case, _: Path) -> Falsified:
    return _older(case), {"receipts": case.kept_receipts}


def _cheaper(entries: list[Entry]) -> list[Entry]:
    return [replace(e, charge=1, draws=1) if e.request_id == "r4" else e for e in entries]


def _rewritten_by_the_custodian(case: Case) -> list[bytes]:
    """Every hash and signature done anew with the ledger's own key: nothing in it tells."""
    lines = case.rewritten(_cheaper, signer=case.keys)
    assert case.check(lines).sound
    return lines


def _forked_against_a_head(case: Case, _: Path) -> Falsified:
    heads = [(Path("kept.json"), case.heads[-1])]
    return _rewritten_by_the_custodian(case), {"heads": heads}


def _forked_against_receipts(case: Case, _: Path) -> Falsified:
    return _rewritten_by_the_custodian(case), {"receipts": case.kept_receipts}


def _rewritten_without_the_key(case: Case, _: Path) -> Falsified:
    return case.rewritten(_cheaper), {}


def _two_logs_with_one_past(case: Case, folder: Path) -> Falsified:
    """The ledger was copied and both copies were served: one's log against the other's receipt."""
    receipts, lines = [], case.lines
    for name, payload in (("one", b"1"), ("two", b"2")):
        copy, witness = folder / name, folder / f"{name}.json"
        shutil.copytree(case.folder, copy)
        shutil.copy(case.witness, witness)
        with Ledger.open(copy, witness=witness) as ledger:
            key = ledger.sample_key(b"z", "v1", b"")
            settled = ledger.settle(name, "r9", b"c", [PendingAnswer(key, 100, 1, payload)], "v1")
            receipts.append((Path(f"{name}.json"), settled.receipt))
            lines = list(ledger.log_lines())
    assert case.check(lines, receipts=receipts[1:]).sound
    return lines, {"receipts": receipts}


def _mixed(case: Case, _: Path) -> Falsified:
    other = case.rewritten(lambda entries: [replace(e, time="later") for e in entries])
    return [*case.lines[:5], other[4], *case.lines[5:]], {}


def _head_of_another_ledger(case: Case, _: Path) -> Falsified:
    head = sign(replace(case.heads[-1], ledger_id="00" * 16), case.keys.signing)
    return case.lines, {"heads": [(Path("kept.json"), head)]}


def _own_head_of_another_ledger(case: Case, _: Path) -> Falsified:
    head = sign(replace(case.heads[-1], ledger_id="00" * 16), case.keys.signing)
    return [*case.lines[:-1], head_line(head)], {}


def _unsigned_end(case: Case, _: Path) -> Falsified:
    more = case.rewritten(lambda entries: [*entries, replace(entries[-1], request_id="r6")])
    return more, {}


def _signature_garbled(case: Case, _: Path) -> Falsified:
    head = SignedHead.from_json(json.loads(case.lines[-1])["head"])
    return [*case.lines[:-1], head_line(replace(head, signature=bytes(64)))], {}


def _under_another_key(case: Case, _: Path) -> Falsified:
    stranger = LedgerKeys(Ed25519PrivateKey.generate(), bytes(32))

    def mine(entries: list[Entry]) -> list[Entry]:
        details = {**entries[0].details, "public_key": stranger.public.hex()}
        return [replace(entries[0], details=details), *_cheaper(entries[1:])]

    lines = case.rewritten(mine, signer=stranger)
    lines[0] = lines[0].replace(case.keys.public.hex().encode(), stranger.public.hex().encode())
    assert case.check(lines).sound
    return lines, {"known": known(case.keys)}


def _under_another_key_against_receipts(case: Case, folder: Path) -> Falsified:
    return _under_another_key(case, folder)[0], {"receipts": case.kept_receipts}


def _line_garbled(case: Case, _: Path) -> Falsified:
    return [*case.lines[:4], b'{"entry":{}}', *case.lines[5:]], {}


def _spaced(case: Case, _: Path) -> Falsified:
    lines = list(case.lines)
    lines[4] = json.dumps(json.loads(lines[4])).encode()
    return lines, {}


def _forged_receipt(case: Case, _: Path) -> Falsified:
    forged = replace(case.receipts[0], charge=0)
    return case.lines, {"receipts": [(Path("forged.json"), forged)]}


def _in_groups(case: Case) -> tuple[list[Receipt], list[Receipt]]:
    """Receipts as the ledger signs those of requests that came at once: r1, r2 and r3, r4, r5."""
    first, second = case.receipts[:2], case.receipts[2:]
    signer = case.keys.signing
    groups = sign_together(first, signer), sign_together(second, signer)
    held = [(Path(f"{item.request_id}.json"), item) for group in groups for item in group]
    assert case.check(receipts=held).sound
    assert all(item.path for group in groups for item in group)
    return groups


def _held(receipt: Receipt) -> Evidence:
    return {"receipts": [(Path("held.json"), receipt)]}


def _path_edited(case: Case, _: Path) -> Falsified:
    receipt = _in_groups(case)[1][1]
    assert receipt.path
    (side, sibling), *rest = receipt.path
    return case.lines, _held(replace(receipt, path=((side, sibling[::-1]), *rest)))


def _path_of_another_place(case: Case, _: Path) -> Falsified:
    group = _in_groups(case)[1]
    return case.lines, _held(replace(group[0], path=group[2].path))


def _path_of_another_group(case: Case, _: Path) -> Falsified:
    first, second = _in_groups(case)
    return case.lines, _held(replace(first[0], path=second[0].path))


def _moved_to_another_group(case: Case, _: Path) -> Falsified:
    first, second = _in_groups(case)
    moved = replace(first[0], path=second[0].path, signature=second[0].signature)
    return case.lines, _held(moved)


def _path_begun_below(case: Case, _: Path) -> Falsified:
    """One step too many at the leaf."""
    receipt = _in_groups(case)[1][0]
    assert receipt.path
    return case.lines, _held(replace(receipt, path=(receipt.path[0], *receipt.path)))


def _node_passed_off_as_a_receipt(case: Case, _: Path) -> Falsified:
    """The path of a leaf one level up: it would have to be the hash of its pair."""
    receipt = _in_groups(case)[1][0]
    assert receipt.path
    return case.lines, _held(replace(receipt, path=receipt.path[1:]))


def _first_line_of_another_ledger(case: Case, _: Path) -> Falsified:
    header = json.loads(case.lines[0]) | {"ledger_id": "00" * 16}
    return [dump(header), *case.lines[1:]], {}


TAMPERINGS = [
    Tampering("an entry edited", _edited, "edited", 3, "does not hash to what is written beside"),
    Tampering("an entry edited, its hash done anew", _edited_and_hashed, "edited", 4,
              "entry 4 does not follow entry 3"),
    Tampering("an entry dropped", _dropped, "dropped", 3, "entry 3 is missing: it was dropped"),
    Tampering("an entry dropped, the rest numbered anew", _dropped_and_renumbered, "edited", 3,
              "dropped and the rest numbered anew"),
    Tampering("an entry repeated", _repeated, "repeated", 3, "stands in the log twice"),
    Tampering("two entries exchanged", _reordered, "reordered", 4, "stands after entry 5"),
    Tampering("the end cut off", _cut_before_its_head, "truncated", 7,
              "its own signed head names entry 7: the end was cut off"),
    Tampering("the end cut off, head included", _cut_with_its_head, "truncated", None,
              "without a signed head"),
    Tampering("an older log, against a kept head", _older_against_a_head, "truncated", 7,
              "the head kept in kept.json names entry 7"),
    Tampering("an older log, against receipts", _older_against_receipts, "truncated", 3,
              "the receipt of client 'bob' in r2.json names entry 3"),
    Tampering("rewritten by the custodian, against a kept head", _forked_against_a_head, "forked",
              7, "the head kept in kept.json is signed and names another entry 7"),
    Tampering("rewritten by the custodian, against receipts", _forked_against_receipts, "forked",
              6, "in r4.json is signed and names another entry 6"),
    Tampering("rewritten without the key", _rewritten_without_the_key, "forked", 7,
              "the log's own signed head is signed and names another entry 7"),
    Tampering("two logs with one past", _two_logs_with_one_past, "forked", 8,
              "served from two copies"),
    Tampering("two logs mixed", _mixed, "forked", 3, "two different entries 3"),
    Tampering("a head of another ledger", _head_of_another_ledger, "unsigned", 7,
              "the head kept in kept.json is of ledger 0000"),
    Tampering("its own head is another ledger's", _own_head_of_another_ledger, "unsigned", 7,
              "the log's signed head is of ledger 0000"),
    Tampering("entries after the signed head", _unsigned_end, "unsigned", 8,
              "no signature covers the rest"),
    Tampering("a head that nobody signed", _signature_garbled, "unsigned", 7,
              "the log's signed head carries no valid signature"),
    Tampering("rewritten under another key, against the known one", _under_another_key, "key",
              None, "one signed by somebody else"),
    Tampering("rewritten under another key, against receipts",
              _under_another_key_against_receipts, "receipt", 1, "no valid signature"),
    Tampering("a line garbled", _line_garbled, "unreadable", None, "line 5 of the log"),
    Tampering("a line written another way", _spaced, "unreadable", None, "line 5 of the log"),
    Tampering("a receipt forged", _forged_receipt, "receipt", 1, "no valid signature"),
    *(
        Tampering(name, how, "receipt", entry, "its path to the signed root, was", path=True)
        for name, how, entry in (
            ("a receipt's path edited", _path_edited, 6),
            ("a receipt with the path of another", _path_of_another_place, 5),
            ("a receipt with the path of another group", _path_of_another_group, 1),
            ("a receipt moved to another group", _moved_to_another_group, 1),
            ("a receipt's path begun below", _path_begun_below, 5),
            ("a receipt's path begun higher up", _node_passed_off_as_a_receipt, 5),
        )
    ),
    Tampering("the first line exchanged", _first_line_of_another_ledger, "edited", 0,
              "the log's first line names another ledger"),
]  # fmt: skip
