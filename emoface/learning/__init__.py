"""Components shared by all trainings: averaged weights, devices, optimizers, learning rates and checkpoints."""
