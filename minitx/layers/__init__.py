"""The closed set of parts that every architecture is built from.

Dimension legend, used in every comment and docstring of this folder:

    B  batch        T  time (query positions)    S  source (key positions)
    H  heads        D  head_dim                  E  hidden_size
    F  intermediate_size                         V  vocabulary
"""
