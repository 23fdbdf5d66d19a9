"""What grammars are written in: regular expressions, GBNF, Lark, JSON schemas."""
