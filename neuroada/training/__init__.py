"""Training with Lightning: module, trainer, loss, callbacks, and distributed runs."""
