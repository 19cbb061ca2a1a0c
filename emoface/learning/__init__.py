"""What every training shares: averaged weights, devices, optimizers."""
