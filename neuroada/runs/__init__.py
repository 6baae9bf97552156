"""Runs on disk: their files, identity and folder, their record, and reading earlier runs."""
