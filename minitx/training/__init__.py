"""Training: objectives, data, the loop, its schedules and optimizers, and checkpoints that resume it."""
