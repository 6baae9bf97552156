"""One run: backbone, method, Lightning module, callbacks, and the jobs that put them together."""
