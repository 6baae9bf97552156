"""What trains: the contract of a fine-tuning method, and every method behind it."""
