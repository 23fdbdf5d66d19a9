"""The closed set of parts that every architecture is built from.

Dimension legend, used in every comment and docstring of this folder:

    B  batch                 T  time (query positions)    S  key positions
    H  heads                 D  head_dim                  E  hidden_size
    F  intermediate_size     C  classes                   V  vocabulary
    K  key/value heads, each of which serves H / K query heads
    W  width of the word embeddings

Of the encoder output in cross-attention:

    B'  sources, each of which serves B / B' rows     S'  source tokens     E'  hidden size of the encoder
"""
