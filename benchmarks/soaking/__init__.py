"""A soak of the service: clients that come, go, die and cancel, and whether the books agree."""
