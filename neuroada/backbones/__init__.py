"""The backbone and its tokenizer: loading, skeletons without weights, probes, and attention of packed rows."""
