"""Looking for one violation among those of a report."""


def found(report, kind: str, entry: int | None, words: str) -> None:
    """There is a violation of this kind, at this entry, that says this."""
    assert not report.sound
    said = [(item.kind, item.entry, item.message) for item in report.violations]
    assert any(item[:2] == (kind, entry) and words in item[2] for item in said), said
