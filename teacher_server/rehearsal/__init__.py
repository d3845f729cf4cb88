"""The real service with a synthetic teacher and a throw-away ledger: to be attacked and audited.

Wire, guard, desk, answerer, release, noise, ledger and receipts are those of `teacher-server
serve`; the teacher alone is arithmetic, so that nothing private is behind it. No torch.
"""
