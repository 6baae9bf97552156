"""Other libraries' front ends for adapted models."""
