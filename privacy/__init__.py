"""The privacy core: the promise, its accounting, the release pipeline and the ledger.

Import the module that is named after the idea, for example `from privacy.budget import open_plan`.
Importing this package loads neither torch nor a privacy library.
"""
