"""HMSA-Net: the network and all of its modules."""
