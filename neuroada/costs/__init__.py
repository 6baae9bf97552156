"""What training and scoring cost: measured side by side, predicted before a run, and estimated for many GPUs."""
