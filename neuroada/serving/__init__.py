"""A server that answers with many adapters of one backbone: vLLM holds the weights, and switching writes a few entries.

``vllm_worker`` runs inside vLLM, in whatever environment it is installed in, and needs no other part than ``sparse``.
The rest is the proxy in front of it.
"""
