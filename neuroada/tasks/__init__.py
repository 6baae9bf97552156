"""What is trained and tested on: data sets, prompts, answers, batches and the Lightning data module."""
