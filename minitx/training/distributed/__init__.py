"""Training on several processes and machines, by PyTorch's own FSDP2, DCP and tensor parallelism."""
