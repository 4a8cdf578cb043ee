"""Our own Triton kernels: plain functions on torch tensors in the layout (B, H, S, D).

They import torch and triton and nothing of attnsweep but each other. An edited file here makes new cells
(identity.kernels_digest).
"""
