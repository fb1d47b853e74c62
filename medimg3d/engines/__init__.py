"""What the Ignite engines of MONAI lack: resuming, CPU autocast, history, progress."""
