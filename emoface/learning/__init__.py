"""What all trainings share: averaged weights, devices, optimizers, learning-rate schedules and checkpoints."""
