"""Receipts and heads that others kept: what a log has to agree with.

A student's answer store keeps receipts in the metadata of its files, of one request or of many;
only the header of such a file is read here, never a tensor.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from privacy.errors import PrivacyError
from privacy.key_history import PIN, KeyHistory
from privacy.ledger.witness import read_heads
from privacy.receipts import Receipt, SignedHead

_LARGEST_HEADER: Final = 100_000_000


@dataclass(frozen=True)
class Evidence:
    """What was found. `damaged`: (source, why) of receipts that cannot be read.

    receipts: with the file each came from. pins: the key that a client trusted on first use, and
    those that it followed from there.
    """

    receipts: list[tuple[Path, Receipt]] = field(default_factory=list)
    pins: list[tuple[Path, KeyHistory]] = field(default_factory=list)
    damaged: list[tuple[Path, str]] = field(default_factory=list)


def read_receipts(path: Path) -> Evidence:
    """The receipts in a file (JSON, JSON lines or safetensors), or in all files under a folder.

    In a folder, files that hold something else, such as a student's weights, are passed over; a
    receipt that cannot be read is reported as damaged. Raises PrivacyError when nothing is there,
    or no receipt at all.
    """
    if not path.exists():
        raise PrivacyError(f"there are no receipts at {path}; name a student's answers folder")
    evidence = Evidence()
    for file in _files(path):
        if file.suffix == ".safetensors":
            _read_chunk(file, evidence)
        elif file.name == PIN:
            _read_pin(file, evidence)
        else:
            _read_json(file, evidence, only=path.is_file())
    if not evidence.receipts and not evidence.damaged:
        raise PrivacyError(
            f"{path} holds no receipt; name a student's answers folder, or a file with receipts"
        )
    return evidence


def read_head(path: Path) -> SignedHead:
    """A head that somebody kept: a witness file, one JSON object, or the last line of a log.

    Raises PrivacyError when the file holds none.
    """
    try:
        try:
            return read_heads(path.read_bytes())[0]
        except ValueError:
            text = path.read_text(encoding="utf-8").strip()
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = json.loads(text.splitlines()[-1] if text else text)
        return SignedHead.from_json(value.get("head", value))
    except FileNotFoundError:
        raise PrivacyError(f"there is no head at {path}") from None
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise PrivacyError(
            f"{path} holds no signed head ({error}); name a witness file or an earlier export"
        ) from None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    suffixes = {".safetensors", ".json", ".jsonl"}
    return sorted(file for file in path.rglob("*") if file.suffix in suffixes and file.is_file())


def _read_chunk(file: Path, evidence: Evidence) -> None:
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            if not 0 < size <= _LARGEST_HEADER:
                raise ValueError("its header is no safetensors header")
            header = json.loads(opened.read(size))
    except (ValueError, RecursionError):
        evidence.damaged.append((file, "its header is no safetensors header"))
        return
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    # Weights and checkpoints lie beside the answers, in the same format.
    if not isinstance(metadata, dict) or not metadata.keys() & {"receipt", "requests"}:
        return
    # Each by itself: what cannot be read hides nothing of what stands beside it.
    entries = [metadata] if "receipt" in metadata else []
    if "requests" in metadata:
        try:
            requests = json.loads(metadata["requests"])
            if not isinstance(requests, list) or not requests:
                raise ValueError("its requests are no list, or an empty one")
            entries += requests
        except (ValueError, TypeError, RecursionError) as error:
            evidence.damaged.append(
                (file, f"its metadata hold no receipts of this format: {error}")
            )
    for entry in entries:
        try:
            evidence.receipts.append((file, Receipt.from_json(json.loads(entry["receipt"]))))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            evidence.damaged.append((file, f"its metadata hold no receipt of this format: {error}"))


def _read_pin(file: Path, evidence: Evidence) -> None:
    try:
        evidence.pins.append((file, KeyHistory.from_json(json.loads(file.read_bytes()))))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        evidence.damaged.append((file, f"it should name the ledger's public key: {error}"))


def _read_json(file: Path, evidence: Evidence, *, only: bool) -> None:
    try:
        found = list(_json_values(file.read_bytes()))
    except (ValueError, RecursionError) as error:
        if only:
            evidence.damaged.append((file, str(error)))
        return
    for value in found:
        inner = value.get("receipt", value) if isinstance(value, dict) else None
        if not (isinstance(inner, dict) and "signature" in inner and "request_id" in inner):
            if only:
                evidence.damaged.append((file, "it holds something that is no receipt"))
            continue
        try:
            evidence.receipts.append((file, Receipt.from_json(inner)))
        except ValueError as error:
            evidence.damaged.append((file, str(error)))


def _json_values(data: bytes) -> Iterator[Any]:
    """The objects of a JSON document, of a list in it, or of JSON lines."""
    try:
        value = json.loads(data)
    except json.JSONDecodeError:
        for line in data.splitlines():
            if line.strip():
                yield json.loads(line)
        return
    if isinstance(value, list):
        yield from value
    else:
        yield value
