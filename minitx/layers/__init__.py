"""The closed set of parts that every architecture is built from.

Dimension legend, used in every comment and docstring of this folder:

    B  batch        T  time (query positions)    S  source (key positions)
    H  heads        D  head_dim                  E  hidden_size
    F  intermediate_size     C  classes          V  vocabulary
    K  key/value heads, of which each serves H / K query heads

Of another text, which an encoder has read for the one at hand:

    B' texts, each of which serves B / B' rows   S' its tokens    E' the encoder's hidden_size
"""
