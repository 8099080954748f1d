"""Sparse autoencoders of the target's activations: trained here on a store's rows, or read from files of others."""
