"""The method: sparse bypasses on linear layers. Needs only torch and safetensors, and no other part of this package."""
