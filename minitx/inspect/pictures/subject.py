"""`Subject` and the names of tokens, as the pictures use them."""

from minitx.inspect.inputs import Subject, Text
from minitx.inspect.tokens import token_name, token_names

__all__ = ["Subject", "Text", "token_name", "token_names"]
