"""What a command says and how it ends when something goes wrong."""

import errno

import pytest

from privacy.errors import LedgerFault, LedgerMismatch, LedgerUnreachable, may_pass, plainly


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EDQUOT])
def test_storage_that_is_full_or_away_may_pass(number):
    assert may_pass(OSError(number, "for a time", "ledger"))


def test_a_database_that_is_away_may_pass():
    assert may_pass(LedgerUnreachable("it does not answer"))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "ledger"),
        PermissionError(errno.EACCES, "Permission denied", "ledger"),
        LedgerMismatch("another data set's"),
        LedgerFault("nobody knows whether it was written"),
        OSError("without a number"),
    ],
)
def test_a_mistake_does_not_pass(error):
    assert not may_pass(error)


def test_a_files_error_is_said_without_its_number():
    assert plainly(OSError(errno.ENOSPC, "No space left", "a/b")) == "a/b: No space left"
    assert plainly(FileNotFoundError(errno.ENOENT, "No such", "a/b")) == "there is nothing at a/b"
    assert plainly(ValueError("as it is")) == "as it is"
