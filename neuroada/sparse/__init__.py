"""The method: sparse bypasses on linear layers. Needs torch and safetensors, nothing else of this package."""
