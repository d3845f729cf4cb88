"""Trains private teachers, and answers public samples with noisy releases under a ledger."""

import os

# gRPC writes its own lines to the terminal; what a custodian must know is said in our own words.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
