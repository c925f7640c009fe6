"""HMSA-Net: all parts of the network."""
