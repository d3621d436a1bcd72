"""The terms of a model's memory, one module a term: pure functions that take counts and give bytes."""

from vlmmem.memory.kv_cache import cached_tokens, kv_bytes_per_token, kv_cache_bytes, kv_heads_per_rank
from vlmmem.memory.weights import weights_bytes

__all__ = ["cached_tokens", "kv_bytes_per_token", "kv_cache_bytes", "kv_heads_per_rank", "weights_bytes"]
