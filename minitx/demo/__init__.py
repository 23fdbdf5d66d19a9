"""The demonstration of `minitx demo`: encoders, decoders and encoder-decoders on the shipped checkpoints.

The command line prints the parts. A part is computed when it is asked for, so that it appears at once.
"""
