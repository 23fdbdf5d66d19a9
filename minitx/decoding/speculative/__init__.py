"""Speculative decoding: a draft proposes tokens, the model verifies several of them in one forward."""
