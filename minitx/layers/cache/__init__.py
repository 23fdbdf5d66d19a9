"""Key/value caches of decoders: one part per layer, and one for the cross-attention of each layer."""

from minitx.layers.cache.cache import Cache
from minitx.layers.cache.cross_attention import CrossAttentionCache
from minitx.layers.cache.int8 import Int8Cache
from minitx.layers.cache.kv import DynamicCache, LayerCache, SlidingWindowCache, StaticCache

__all__ = [
    "Cache",
    "CrossAttentionCache",
    "DynamicCache",
    "Int8Cache",
    "LayerCache",
    "SlidingWindowCache",
    "StaticCache",
]
