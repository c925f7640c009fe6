"""HMSA-Net: the network and all of its modules.

- ``model``: the network, its hyper-parameters and its outputs
- ``inputs``: checks of the inputs, and the target speakers of a batch packed into rows
- ``acoustic``, ``visual``: features of each target speaker from audio and from video
- ``cgima``: fusion of both, gated by how well they agree
- ``disa``: exchange of information between target speakers
- ``decoder``: alternation of ``disa`` and attention over time, and the final logits
- ``inspection``: gates, synchrony and attention as numbers and plots
"""
