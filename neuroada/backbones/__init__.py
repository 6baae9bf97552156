"""The backbone and its tokenizer: loading, skeletons without weights, probes, and attention for packed rows."""
