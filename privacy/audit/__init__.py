"""The auditor's application: what an outsider runs to believe the ε, or not to."""
