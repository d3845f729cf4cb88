"""The wire contract: messages, tensors on the wire, and the reasons that errors carry."""

from protos.reasons import ERROR_DOMAIN, Reason
from protos.tensors import TensorError, from_message, to_message

__all__ = ["ERROR_DOMAIN", "Reason", "TensorError", "from_message", "to_message"]
