"""A replica in a process of its own; test_replicas.py starts several and gives them a ledger.

Each line of its input is a JSON object: {"open": [FOLDER, WITNESS]} opens a ledger in place of the
one before, {"settle": [REQUEST, …]} settles requests from four threads at once. The answer is one
line of JSON: what became of them.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from privacy.errors import BudgetExhausted
from privacy.ledger import Ledger, PendingAnswer


def settle(ledger: Ledger, request: dict[str, Any]) -> dict[str, Any]:
    pending = [
        PendingAnswer(
            ledger.sample_key(sample.encode(), "v1", b"settings"),
            100,
            10,
            f"{request['drawn_by']} {sample}".encode(),
        )
        for sample in request["samples"]
    ]
    try:
        settled = ledger.settle(request["client"], request["request_id"], b"c" * 32, pending, "v1")
    except BudgetExhausted as refusal:
        return {"request": request, "refused": refusal.left}
    return {
        "request": request,
        "payloads": [payload.decode() for payload in settled.payloads],
        "receipt": settled.receipt.to_json_bytes().decode(),
        "charged": 0 if settled.repeated else settled.charged,
    }


def main() -> None:
    ledger: Ledger | None = None
    with ThreadPoolExecutor(4) as pool:
        for line in sys.stdin:
            command = json.loads(line)
            if "open" in command:
                if ledger is not None:
                    ledger.close()
                folder, witness = map(Path, command["open"])
                ledger = Ledger.open(folder, witness=witness)
                print(json.dumps(ledger.rolled_back), flush=True)
            else:
                outcomes = pool.map(partial(settle, ledger), command["settle"])
                print(json.dumps(list(outcomes)), flush=True)


if __name__ == "__main__":
    main()
