"""Directions in activations: probes, sparse autoencoders, and texts that activate a neuron."""
