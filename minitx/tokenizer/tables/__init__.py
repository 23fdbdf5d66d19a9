"""Tables as model inputs: the tokenizer of questions about a table, and tables as text."""
