"""What an interrupted training leaves beside its output folder, on the secure host."""

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ktan.durable import write_durably
from ktan.errors import UserError

_RUN = "run.json"
_REFERENCE = "reference.safetensors"


@dataclass(frozen=True)
class Unfinished:
    """The folder OUT.partial: the teacher's version, its settings, states of training."""

    folder: Path
    version: str
    """Drawn once: a resumed run makes the same teacher, and is charged once."""
    ledger_id: str = ""
    """Of the ledger that it was begun under."""

    @classmethod
    def open(cls, out: Path, settings: Mapping[str, Any], *, resume: bool) -> "Unfinished":
        """A new one, or the interrupted one on `resume`.

        Raises UserError when an interrupted run is there and nobody asked to resume it, when there
        is none, or when it had other settings.
        """
        folder = out.with_name(f"{out.name}.partial")
        path = folder / _RUN
        if not resume:
            if folder.exists():
                raise UserError(
                    f"{folder} holds an interrupted training; go on with --resume, or delete it"
                )
            folder.mkdir(mode=0o700, parents=True)
            version = secrets.token_hex(16)
            content = {"version": version, "settings": settings}
            write_durably(path, json.dumps(content, indent=2).encode())
            return cls(folder, version, str(settings.get("ledger", "")))
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            version, previous = str(found["version"]), found["settings"]
        except FileNotFoundError as error:
            raise UserError(f"there is no interrupted training at {folder}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: delete {folder} and train anew") from error
        _require_same(folder, settings, previous)
        return cls(folder, version, str(settings.get("ledger", "")))

    @classmethod
    def joined(cls, out: Path, settings: Mapping[str, Any]) -> "Unfinished | None":
        """The training at `out` that another process has begun; None as long as there is none.

        `settings`: without the ledger, which only that process has opened. Raises UserError when it
        has other ones.
        """
        folder = out.with_name(f"{out.name}.partial")
        try:
            found = json.loads((folder / _RUN).read_text(encoding="utf-8"))
            version, previous = str(found["version"]), dict(found["settings"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / _RUN} is damaged: delete {folder}, train anew") from error
        ledger_id = str(previous.pop("ledger", ""))
        _require_same(folder, settings, previous)
        return cls(folder, version, ledger_id)

    @classmethod
    def version_at(cls, out: Path) -> str | None:
        """The version of the interrupted training at `out`, None where there is none to read."""
        try:
            path = out.with_name(f"{out.name}.partial") / _RUN
            return str(json.loads(path.read_text(encoding="utf-8"))["version"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def reference(self) -> dict[str, Tensor] | None:
        """The public reference's weights, if they were kept."""
        path = self.folder / _REFERENCE
        return safetensors.torch.load_file(path) if path.exists() else None

    def keep_reference(self, state: Mapping[str, Tensor]) -> None:
        """Keeps the public reference's weights: trained again, they may differ in the last bit."""
        plain = {name: value.contiguous() for name, value in state.items()}
        write_durably(self.folder / _REFERENCE, safetensors.torch.save(plain))

    def discard(self) -> None:
        """Deletes the folder: the teacher is finished."""
        shutil.rmtree(self.folder)


def _require_same(folder: Path, settings: Mapping[str, Any], previous: Mapping[str, Any]) -> None:
    current = json.loads(json.dumps(settings))
    keys = current.keys() | previous.keys()
    changed = sorted(key for key in keys if current.get(key) != previous.get(key))
    if changed:
        raise UserError(
            f"the interrupted training at {folder} had other settings ({', '.join(changed)}); "
            "give the same ones, or delete it and train anew"
        )
