"""One file a command of `privacy-audit`: its options, and what it prints."""
