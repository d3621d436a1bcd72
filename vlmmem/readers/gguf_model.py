"""A `Model` out of a GGUF file's header: its tensors, and what its metadata says that each layer keeps.

The rules are those by which llama.cpp reads such a file (src/models/*.cpp, `load_arch_hparams`, and
src/llama-hparams.cpp; read at the commits named below). Metadata of an architecture stand under its name.
"""

from collections.abc import Mapping, Sequence

from vlmmem.errors import InputError
from vlmmem.layers import Cache, KeyValueCache, LatentCache, Layer, StateCache, Tensor
from vlmmem.model import Model, VisionTower
from vlmmem.readers.checkpoint import UNKNOWN_LENGTH, most_experts, sort_weights
from vlmmem.readers.gguf import Skipped
from vlmmem.readers.stored import Header, shown
from vlmmem.record import replace

__all__ = ["PERIODS", "model_from_gguf", "tower_from_gguf"]

PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4, "exaone4": 4, "olmo2": 4, "llama4": 4}
"""How many layers lie from one full layer to the next where a file carries a window and no pattern.

llama.cpp: src/models/gemma2.cpp (commit 82234e08), openai-moe.cpp, cohere2.cpp (96158319), gemma3n.cpp (a26ba0fe),
gemma3.cpp, exaone4.cpp, olmo2.cpp, llama4.cpp. The last layer of each period is full: src/llama-hparams.cpp,
`set_swa_pattern` (commit 01b77b57): `il % n < n - 1` slides.
"""

_CHUNKED = {"llama4": 8192}
"""Architectures whose window is a chunk: llama4.cpp sets 8,192 where the file names none."""

_NO_WINDOW = ("phi3",)
"""phi3.cpp switches the window off, whatever the file says (its conversion wrote none that can be used)."""

_SHARED_FROM = {"gemma3n": 20}
"""gemma3n.cpp: layers from this one on read the cache of earlier ones, where the file does not say how many do."""

_MOST = 1 << 40
_FORMATS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}


class _Metadata:
    """The metadata of one architecture, asked for by type."""

    def __init__(self, header: Header) -> None:
        self.where = header.where
        self._data: Mapping[str, object] = header.metadata
        self.architecture = self._data.get("general.architecture")
        if not isinstance(self.architecture, str) or not self.architecture:
            raise InputError(f"{self.where}: 'general.architecture' is missing; a model's GGUF file is needed")

    def raw(self, key: str) -> object:
        return self._data.get(f"{self.architecture}.{key}")

    def _wrong(self, key: str, need: str) -> InputError:
        return InputError(
            f"{self.where}: '{shown(self.architecture)}.{key}' is {shown(self.raw(key))}; {need} is needed"
        )

    def count(self, key: str, default: int | None = None, *, least: int = 0, most: int = _MOST) -> int:
        """An integer from `least`; `default` where the key is missing."""
        found = self.raw(key)
        if found is None and default is not None:
            return default
        if type(found) is not int or not least <= found <= most:
            raise self._wrong(key, f"an integer from {least} to {most:,}")
        return found

    def per_layer(self, key: str, layers: int, default: int | None = None) -> tuple[int, ...]:
        """One integer a layer: a list of them, or one for all."""
        found = self.raw(key)
        if isinstance(found, tuple):
            if len(found) < layers or not all(type(value) in (int, bool) and 0 <= value <= _MOST for value in found):
                raise self._wrong(key, f"one integer for each of {layers} layers")
            return tuple(int(value) for value in found[:layers])
        return (self.count(key, default),) * layers

    def text(self, key: str) -> str:
        """A text, or an empty one."""
        found = self._data.get(key)
        return found if isinstance(found, str) else ""

    def length(self, key: str) -> int:
        """How many items a list has, 0 where it is missing."""
        found = self._data.get(key)
        return found.length if isinstance(found, Skipped) else len(found) if isinstance(found, tuple) else 0


def model_from_gguf(header: Header, mmproj: Header | None = None) -> Model:
    """The model of a GGUF file; with `mmproj`, the file of its vision tower and projector.

    Raises:
        InputError: metadata are missing, of the wrong type or contradict the tensors.
    """
    data = _Metadata(header)
    if data.architecture == "clip":
        raise InputError(
            f"{header.where}: is a vision tower (mmproj); the file of its language model is needed beside it"
        )
    blocks = data.count("block_count", most=4096)
    ahead = data.count("nextn_predict_layers", 0, most=blocks)
    layers = blocks - ahead
    sorted_ = sort_weights((*header.tensors, *(mmproj.tensors if mmproj else ())), layers)
    key = ("language", "blk")
    if layers == 0 or key not in sorted_.stacks:
        raise InputError(f"{header.where}: has no blocks; the GGUF file of a language model is needed")
    by_index = sorted_.stacks[key]
    caches = _caches(data, by_index, layers)
    shared: dict[tuple[object, ...], Layer] = {}
    made = []
    for index in range(layers):
        kind, kept = caches[index]
        tensors = _queries(by_index.get(index, []), kept)
        layer = Layer(kind, tensors, kept)
        made.append(shared.setdefault((kind, kept, tensors), layer))
    notes = list(header.notes)
    if sorted_.mtp:
        held = sum(tensor.stored or 0 for tensor in sorted_.mtp)
        notes.append(f"heads for multi-token prediction are not added: {held:,} bytes of the file")
    if isinstance(data.raw("rwkv.head_size"), int) or data.raw("wkv.head_size") is not None:
        notes.append("the state of RWKV layers is not in it")
    experts = max(most_experts(made), data.count("expert_count", 0, most=1 << 20))
    heads = data.per_layer("attention.head_count", layers, 1)
    kv_heads = data.per_layer("attention.head_count_kv", layers, heads[0])
    embedding = next(
        (t for t in sorted_.outside.get("language", ()) if t.name == "token_embd.weight" and len(t.shape) == 2), None
    )
    hidden = data.count("embedding_length", least=1)
    wide = data.per_layer("feed_forward_length", layers, 0)
    most_heads, most_kv = max(heads) or 1, max(kv_heads) or 1
    return Model(
        architecture=str(data.architecture),
        layers=layers,
        hidden_size=hidden,
        heads=most_heads,
        kv_heads=most_kv if most_heads % most_kv == 0 else 1,
        head_dim=data.count("attention.key_length", hidden // most_heads) or 1,
        intermediate_size=max(wide) or data.count("expert_feed_forward_length", 1),
        vocab_size=(embedding.shape[0] if embedding else 0) or data.length("tokenizer.ggml.tokens") or 1,
        max_positions=data.count("context_length", UNKNOWN_LENGTH) or UNKNOWN_LENGTH,
        tied_embeddings=not any(t.kind == "head" for t in sorted_.outside.get("language", ())),
        activation="silu" if any("ffn_gate" in t.name for t in by_index.get(0, ())) else "gelu",
        dtype=_dtype(header),
        parts=sorted_.parts(key, made),
        vision=tower_from_gguf(mmproj) if mmproj is not None else None,
        experts=experts,
        active_experts=min(data.count("expert_used_count", 0), experts) or experts,
        mtp_parameters=sum(tensor.parameters for tensor in sorted_.mtp),
        basis="header",
        name=data.text("general.name"),
        notes=tuple(notes),
    )


def _dtype(header: Header) -> str:
    """The format of what stands beside the weights: that of the file where it is not quantised, else fp16.

    llama.cpp keeps a KV cache in fp16 unless it is told otherwise (common/common.h, cache_type_k).
    """
    held: dict[str, int] = {}
    for tensor in header.tensors:
        held[tensor.dtype] = held.get(tensor.dtype, 0) + tensor.bytes
    return _FORMATS.get(max(held, key=lambda dtype: held[dtype]), "fp16") if held else "fp16"


def _slides(data: _Metadata, layers: int, window: int) -> tuple[bool, ...]:
    """Which layers attend to a window or a chunk only."""
    architecture = str(data.architecture)
    if not window or architecture in _NO_WINDOW:
        return (False,) * layers
    pattern = data.raw("attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        # Shorter than the layers, it repeats; llama.cpp wants one for each.
        if not pattern or not all(type(value) in (int, bool) for value in pattern):
            raise InputError(
                f"{data.where}: 'sliding_window_pattern' is no list of flags; one for each layer is needed"
            )
        return tuple(bool(pattern[index % len(pattern)]) for index in range(layers))
    period = data.count("attention.sliding_window_pattern", PERIODS.get(architecture, 0))
    if period == 0 and architecture in PERIODS:
        period = PERIODS[architecture]
    return tuple(period == 0 or index % period < period - 1 for index in range(layers))


def _caches(
    data: _Metadata, by_index: Mapping[int, Sequence[Tensor]], layers: int
) -> list[tuple[str, tuple[Cache, ...]]]:
    """Kind and caches of each layer. Which of attention and recurrence a block has is told by its tensors."""
    architecture = str(data.architecture)
    heads = data.per_layer("attention.head_count", layers, 1)
    kv_heads = data.per_layer("attention.head_count_kv", layers, max(heads))
    hidden = data.count("embedding_length")
    usual = hidden // (max(heads) or 1)
    key_dim = data.count("attention.key_length", usual)
    value_dim = data.count("attention.value_length", usual)
    chunk = _CHUNKED.get(architecture)
    window = data.count("attention.sliding_window", chunk or 0)
    slides = _slides(data, layers, window)
    swa_key = data.count("attention.key_length_swa", key_dim)
    swa_value = data.count("attention.value_length_swa", value_dim)
    rank = data.count("attention.kv_lora_rank", 0)
    shared = data.count("attention.shared_kv_layers", 0, most=layers)
    first_shared = layers - shared if shared else _SHARED_FROM.get(architecture, layers)
    state = _state(data, hidden)
    found: list[tuple[str, tuple[Cache, ...]]] = []
    for index in range(layers):
        names = {tensor.name for tensor in by_index.get(index, ())}
        recurrent = any(name.startswith(("ssm_", "shortconv.")) for name in names)
        attends = any(name.startswith(("attn_k.", "attn_qkv.", "attn_kv_a_mqa.", "attn_k_b.")) for name in names)
        caches: tuple[Cache, ...] = ()
        kind = "mlp"
        if index >= first_shared and not recurrent:
            found.append(("shared", ()))
            continue
        # A gated delta net calls the projection of its queries, keys and values attn_qkv as well.
        if (
            recurrent
            and "attn_qkv.weight" in names
            and "attn_k.weight" not in names
            and "attn_output.weight" not in names
        ):
            attends = False
        if rank and attends and (data.raw("attention.key_length_mla") is not None or "attn_k_b.weight" in names):
            kind = "latent"
            caches = (LatentCache(rank + data.count("rope.dimension_count", 0)),)
            if any(name.startswith("indexer.") for name in names):
                caches += (LatentCache(data.count("attention.indexer.key_length", 128), "indexer"),)
        elif attends and kv_heads[index]:
            sliding = slides[index]
            kind = "full" if not sliding else "chunked" if chunk else "sliding"
            limit = window if sliding else None
            caches = (
                KeyValueCache(
                    kv_heads[index],
                    swa_key if sliding else key_dim,
                    swa_value if sliding else value_dim,
                    window=None if chunk else limit,
                    chunk=limit if chunk else None,
                ),
            )
        if recurrent:
            kind = (
                kind if attends else "convolution" if any(n.startswith("shortconv.") for n in names) else "state-space"
            )
            caches += state
        found.append((kind, caches))
    return found


def _state(data: _Metadata, hidden: int) -> tuple[StateCache, ...]:
    """What a recurrent layer keeps, in 32 bits: llama-hparams.cpp, `n_embd_r` and `n_embd_s`."""
    length = data.count("shortconv.l_cache", 0)
    if length:
        return (StateCache(hidden * (length - 1), "fp32", 1, "convolution"),)
    kernel, inner = data.count("ssm.conv_kernel", 0), data.count("ssm.inner_size", 0)
    size, groups = data.count("ssm.state_size", 0), data.count("ssm.group_count", 0)
    width = data.count("kda.head_dim", 0)
    if width:
        # Kimi's delta attention: convolutions of queries, keys and values, and a matrix a head.
        heads = max(data.per_layer("attention.head_count", 1, 1))
        return (
            StateCache(3 * max(kernel - 1, 0) * heads * width, "fp32", heads, "convolution"),
            StateCache(width * width * heads, "fp32", heads),
        )
    if not inner or not size:
        return ()
    ranks = data.count("ssm.time_step_rank", 1) or 1
    heads = ranks if groups and inner % ranks == 0 else 1
    return (
        StateCache(max(kernel - 1, 0) * (inner + 2 * groups * size), "fp32", groups or 1, "convolution"),
        StateCache(size * inner, "fp32", heads),
    )


def _queries(tensors: Sequence[Tensor], caches: Sequence[Cache]) -> tuple[Tensor, ...]:
    cache = next((each for each in caches if isinstance(each, KeyValueCache)), None)
    return tuple(
        replace(tensor, query_rows=max(0, tensor.shape[0] - cache.elements))
        if cache is not None and tensor.cut == "qkv" and tensor.shape
        else tensor
        for tensor in tensors
    )


def tower_from_gguf(header: Header) -> VisionTower:
    """The shape of the vision tower in an mmproj file (metadata clip.vision.*)."""
    data = _Metadata(header)
    if data.architecture != "clip":
        raise InputError(
            f"{header.where}: its architecture is {shown(data.architecture)}; clip is needed (an mmproj file)"
        )
    return VisionTower(
        architecture=data.text("clip.projector_type") or data.text("clip.vision.projector_type") or "clip",
        layers=data.count("vision.block_count", 0),
        hidden_size=data.count("vision.embedding_length", 0),
        heads=data.count("vision.attention.head_count", 1),
        intermediate_size=data.count("vision.feed_forward_length", 0),
        image_size=data.count("vision.image_size", 0),
        patch_size=data.count("vision.patch_size", 1) or 1,
        channels=3,
    )
