"""Train chargen's character models with PyTorch: `training.train` is the loop."""
