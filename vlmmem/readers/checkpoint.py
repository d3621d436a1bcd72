"""A `Model` out of the headers of a safetensors checkpoint: exact bytes, exact parameters, caches by its config.

Where a config.json stands beside, it says what each layer keeps of a sequence (vlmmem/architectures), and the header
says what the weights are. A header alone tells the widths of keys and values, but no windows and no states.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vlmmem.errors import InputError
from vlmmem.layers import Cache, KeyValueCache, LatentCache, Layer, Part, Tensor
from vlmmem.model import Model
from vlmmem.readers.names import MOST_LAYERS, Place, place
from vlmmem.readers.packing import bits_of, weights
from vlmmem.readers.stored import Header, StoredTensor
from vlmmem.record import replace

__all__ = ["Sorted", "model_from_index", "model_from_safetensors", "most_experts", "sort_weights"]

UNKNOWN_LENGTH = 1 << 20
"""The longest sequence, where nothing says it: a header does not."""

NO_CACHE = "the KV cache is not in it: a header does not say what {} keep; the config.json beside it would"
NO_WINDOW = "a header names no sliding windows: every layer is taken to keep all tokens; a config.json would say"

_EXPERT = re.compile(r"(.*(?<![^.])experts)\.(\d+)\.(.+)")
_STACKS = ("layers", "blocks", "blk", "h")
_FORMATS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_FIRST = re.compile(r"^(?:(?:model|language_model|thinker|transformer|backbone)\.)+")
"""Modules that releases of transformers put before the others or leave out."""

_MTP = ("mtp.", "model.mtp.", "model.mtp_block", "mtp_block")


class Sorted:
    """The tensors of a checkpoint by part and layer."""

    def __init__(self) -> None:
        self.outside: dict[str, list[Tensor]] = {}
        self.stacks: dict[tuple[str, str], dict[int, list[Tensor]]] = {}
        self.mtp: list[Tensor] = []

    def main(self) -> tuple[str, str] | None:
        """The stack of the decoder: that of the language model with the most parameters."""
        stacks = [key for key in self.stacks if key[0] == "language"]
        return max(
            stacks, key=lambda key: sum(t.stored or 0 for ts in self.stacks[key].values() for t in ts), default=None
        )

    def parts(self, decoder: tuple[str, str], layers: Sequence[Layer]) -> tuple[Part, ...]:
        """All parts; the decoder with the layers given, others with layers of their own."""
        names = list(dict.fromkeys(["language", *(part for part, _ in self.stacks), *self.outside]))
        found = []
        for name in names:
            outside = tuple(self.outside.get(name, ()))
            stacks = [key for key in self.stacks if key[0] == name]
            if name == decoder[0]:
                stacks.sort(key=lambda key: key != decoder)
            for key in stacks:
                own = layers if key == decoder else _layers(self.stacks[key])
                found.append(Part(name, outside, key[1], tuple(own)))
                outside = ()
            if outside:
                found.append(Part(name, outside))
        return tuple(found)


def _layers(by_index: dict[int, list[Tensor]]) -> list[Layer]:
    """Layers that keep nothing, such as a vision tower's; those alike are one object."""
    alike = {tensors: Layer("none", tensors) for tensors in {tuple(each) for each in by_index.values()} | {()}}
    return [alike[tuple(by_index.get(index, ()))] for index in range(max(by_index) + 1)]


def _known(built: Model | None) -> dict[str, tuple[str, Tensor]]:
    """The tensors of a config's model with their parts, by what is left of a name without its first modules."""
    if built is None:
        return {}
    return {_FIRST.sub("", name): (part.name, tensor) for part in built.parts for name, tensor in part.named()}


def sort_weights(
    found: Iterable[StoredTensor], depth: int | None = None, known: Mapping[str, tuple[str, Tensor]] | None = None
) -> Sorted:
    """Tensors by part and layer; experts of one layer that are alike become one tensor.

    Args:
        found: the weights.
        depth: layers of the decoder, where they are known: what stands in a later one predicts further tokens.
        known: parts and tensors by name, where a config describes them; other names are judged by themselves.
    """
    result = Sorted()
    known = known or {}
    alike: dict[tuple[str, tuple[int, ...], str], list[StoredTensor]] = {}
    for weight in found:
        expert = _EXPERT.fullmatch(weight.name) if "experts." in weight.name else None
        name = f"{expert[1]}.*.{expert[3]}" if expert else weight.name
        alike.setdefault((name, weight.shape, weight.dtype), []).append(weight)
    for (name, shape, dtype), group in alike.items():
        where = place(name.replace("experts.*.", "experts.0.") if "*" in name else name)
        told = known.get(_FIRST.sub("", name)) if known else None
        if told is not None and told[1].shape == shape:
            where = where._replace(part=told[0], kind=told[1].kind, cut=told[1].cut)
        stacked = "experts.*." in name
        tensor = _tensor(where, name, (len(group), *shape) if stacked else shape, dtype, sum(w.bytes for w in group))
        if name.startswith(_MTP) or (where.part == "language" and depth is not None and (where.layer or 0) >= depth):
            result.mtp.append(tensor)
        elif where.layer is None:
            result.outside.setdefault(where.part, []).append(tensor)
        else:
            result.stacks.setdefault((where.part, where.stack), {}).setdefault(where.layer, []).append(tensor)
    return result


def _tensor(where: Place, name: str, shape: tuple[int, ...], dtype: str, size: int) -> Tensor:
    kind, cut = where.kind, where.cut
    own = name if where.layer is None else name[name.index(f".{where.layer}.") + len(f".{where.layer}.") :]
    if kind == "buffer":
        return Tensor(own, (0,), "other", "whole", dtype=dtype, stored=size)
    if kind == "other" and len(shape) > 1:
        kind = "linear"
    # A norm's name may stand for a matrix, and a vector may have a matrix's name.
    if kind in ("linear", "expert", "router") and len(shape) < 2:
        kind = "other"
    return Tensor(own, shape, kind, cut, dtype=dtype, stored=size)


def model_from_safetensors(header: Header, built: Model | None = None, config: object = None) -> Model:
    """The model of a checkpoint's headers.

    Args:
        header: the headers of all its files.
        built: the model that its config describes, or None where there is no config.
        config: that config, for the bits of packed weights.

    Raises:
        InputError: no tensor of it is the layer of a language model.
    """
    found, notes = weights(header.tensors, bits_of(config))
    sorted_ = sort_weights(found, built.layers if built else None, _known(built))
    decoder = sorted_.main()
    if decoder is None:
        raise InputError(
            f"{header.where}: holds {len(header.tensors)} tensors and no layer of a language model;"
            " a whole checkpoint is needed"
        )
    by_index = sorted_.stacks[decoder]
    notes = (*header.notes, *notes)
    if built is not None:
        return _with_config(built, sorted_, decoder, notes, header.where)
    alike: dict[tuple[Tensor, ...], Layer] = {}
    unknown = False
    for tensors in {tuple(each) for each in by_index.values()} | {()}:
        caches = _caches(tensors)
        unknown |= caches is None
        alike[tensors] = Layer(_kind(caches), _with_queries(tensors, caches or ()), caches or ())
    layers = [alike[tuple(by_index.get(index, ()))] for index in range(max(by_index) + 1)]
    notes = (*notes, NO_CACHE.format("some layers") if unknown else NO_WINDOW)
    return _alone(header, sorted_, decoder, layers, notes)


def _kind(caches: tuple[Cache, ...] | None) -> str:
    if not caches:
        return "none" if caches is None else "mlp"
    return "latent" if isinstance(caches[0], LatentCache) else "full"


def _with_config(built: Model, sorted_: Sorted, decoder: tuple[str, str], notes: tuple[str, ...], where: str) -> Model:
    by_index = sorted_.stacks[decoder]
    shared: dict[tuple[object, ...], Layer] = {}
    layers = []
    for index, layer in enumerate(built.decoder.layers):
        tensors = _with_queries(tuple(by_index.get(index, ())), layer.caches)
        key = (layer.kind, layer.caches, tensors)
        layers.append(shared.setdefault(key, Layer(layer.kind, tensors, layer.caches)))
    if not all(by_index.get(index) for index in range(built.layers)):
        lacking = sum(not by_index.get(index) for index in range(built.layers))
        notes = (*notes, f"{lacking} of its {built.layers} layers are not in the files")
    outside = sorted_.outside.get("language", [])
    if built.tied_embeddings and any(t.kind == "embedding" for t in outside):
        head = [t for t in outside if t.kind == "head"]
        if head:
            sorted_.outside["language"] = [t for t in outside if t.kind != "head"]
            notes = (*notes, "the file holds an output head that its config ties to the embedding: it is counted once")
    parts = sorted_.parts(decoder, layers)
    mtp = sum(tensor.parameters for tensor in sorted_.mtp)
    found = replace(built, parts=parts, basis="header", mtp_parameters=mtp or built.mtp_parameters)
    if not built.experts and (experts := most_experts(layers)):
        raise InputError(f"{where}: holds {experts} experts a layer where its config names none; the two must agree")
    if sorted_.mtp:
        held = sum(tensor.stored or 0 for tensor in sorted_.mtp)
        notes = (*notes, f"heads for multi-token prediction are not added: {held:,} bytes of the files")
    return replace(found, notes=(*built.notes, *notes))


def _alone(
    header: Header, sorted_: Sorted, decoder: tuple[str, str], layers: Sequence[Layer], notes: tuple[str, ...]
) -> Model:
    """A model of which only the header is known; what it does not say is 1."""
    outside = sorted_.outside.get("language", [])
    table = next((t for t in outside if t.kind == "embedding" and len(t.shape) == 2), None)
    attention = next((layer for layer in layers if layer.caches), None)
    first = attention or layers[0]
    cache = first.caches[0] if first.caches else None
    kv_heads, width = 1, 1
    if isinstance(cache, KeyValueCache):
        kv_heads, width = cache.heads, cache.key_dim
    queries = _rows(first.tensors, ("q_proj", "wq", "attn_q")) or _inputs(first.tensors, OUTPUT_NAMES)
    wide = _rows(first.tensors, ("up_proj", "w3", "fc1", "c_fc", "dense_h_to_4h", "ffn_up")) or 1
    heads = queries // width if queries and queries % width == 0 and (queries // width) % kv_heads == 0 else kv_heads
    experts = most_experts(layers)
    if experts:
        notes = (*notes, "how many experts a token is sent to is not in a header: all count as active")
    gated = any("gate" in t.name or t.name.endswith("w1.weight") for t in first.tensors)
    return Model(
        architecture="",
        layers=len(layers),
        hidden_size=max(1, table.shape[1]) if table else 1,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        intermediate_size=wide,
        vocab_size=max(1, table.shape[0]) if table else 1,
        max_positions=UNKNOWN_LENGTH,
        tied_embeddings=not any(t.kind == "head" for t in outside),
        activation="silu" if gated else "gelu",
        dtype=_dtype(header),
        parts=sorted_.parts(decoder, layers),
        experts=experts,
        active_experts=experts,
        mtp_parameters=sum(tensor.parameters for tensor in sorted_.mtp),
        basis="header",
        notes=notes,
    )


def most_experts(layers: Iterable[Layer]) -> int:
    """The most experts that a layer has: how many its tensors hold."""
    counts = [t.shape[0] for layer in layers for t in layer.tensors if t.kind == "expert"]
    return max(1, *counts) if counts else 0


def _dtype(header: Header) -> str:
    """The 16- or 32-bit type that holds the most bytes; bfloat16 where there is none."""
    held: dict[str, int] = {}
    for tensor in header.tensors:
        if tensor.dtype in _FORMATS:
            held[tensor.dtype] = held.get(tensor.dtype, 0) + tensor.bytes
    return _FORMATS[max(held, key=lambda dtype: held[dtype])] if held else "bf16"


OUTPUT_NAMES = ("o_proj", "out_proj", "dense", "c_proj", "wo", "attn_output")


def _find(tensors: Iterable[Tensor], names: tuple[str, ...]) -> Tensor | None:
    """The matrix whose module has one of these names."""
    wanted = tuple(f"{name}.weight" for name in names)
    for tensor in tensors:
        if len(tensor.shape) == 2 and tensor.name.endswith(wanted):
            stem = tensor.name.removesuffix(".weight").rpartition(".")[2]
            if stem in names and "mlp" not in tensor.name and "cross" not in tensor.name:
                return tensor
    return None


def _rows(tensors: Iterable[Tensor], names: tuple[str, ...]) -> int:
    wanted = tuple(f"{name}.weight" for name in names)
    found = next((t for t in tensors if len(t.shape) == 2 and t.name.endswith(wanted)), None)
    return found.shape[0] if found else 0


def _inputs(tensors: Iterable[Tensor], names: tuple[str, ...]) -> int:
    found = _find(tensors, names)
    return found.shape[1] if found else 0


def _caches(tensors: tuple[Tensor, ...]) -> tuple[Cache, ...] | None:
    """What a layer keeps, out of the shapes of its tensors; None where they do not tell."""
    latent = _find(tensors, ("kv_a_proj_with_mqa",))
    if latent is not None:
        indexer = next((t for t in tensors if t.name.endswith("indexer.wk.weight")), None)
        key = () if indexer is None else (LatentCache(indexer.shape[0], "indexer"),)
        return (LatentCache(latent.shape[0]), *key)
    if any(word in tensor.name for tensor in tensors for word in ("A_log", "conv", "ssm", "linear_attn", "time_mix")):
        return None
    keys = _rows(tensors, ("k_proj", "wk", "attn_k", "self_attn.key"))
    values = _rows(tensors, ("v_proj", "wv", "attn_v", "self_attn.value")) or keys
    if not keys:
        fused = _find(tensors, ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "wqkv", "W_pack", "attn_qkv"))
        queries = _inputs(tensors, OUTPUT_NAMES)
        if fused is None:
            return None if any("attn" in t.name or "attention" in t.name for t in tensors) else ()
        rest = (fused.shape[1] if fused.name.endswith("c_attn.weight") else fused.shape[0]) - queries
        if queries <= 0 or rest <= 0 or rest % 2:
            return None
        keys = values = rest // 2
    head = next((t.shape[0] for t in tensors if t.name.endswith(("k_norm.weight", "k_layernorm.weight")) if t.shape), 0)
    heads = keys // head if head and keys % head == 0 and values % (keys // head) == 0 else 1
    return (KeyValueCache(heads, keys // heads, values // heads),)


def _with_queries(tensors: tuple[Tensor, ...], caches: tuple[Cache, ...]) -> tuple[Tensor, ...]:
    """The tensors, of which those that hold queries, keys and values know how many rows are queries."""
    cache = next((each for each in caches if isinstance(each, KeyValueCache)), None)
    if cache is None or not any(tensor.cut == "qkv" for tensor in tensors):
        return tensors
    return tuple(
        replace(t, query_rows=max(0, t.shape[0] - cache.elements)) if t.cut == "qkv" and t.shape else t for t in tensors
    )


def model_from_index(header: Header, built: Model | None = None) -> Model:
    """The model of an index without its shards: the bytes that it states, and what its config says of the rest.

    Without a config there are no parameters: the answer is the weights' bytes, and a note says what would help.
    """
    if built is not None:
        note = f"its index states {header.total_bytes:,} bytes of weights; parameters are those of the config"
        return replace(built, notes=(*built.notes, *header.notes, note))
    # One search in all names, for a word at a time: an index may have a hundred thousand.
    names = "\n".join(header.names)
    numbers = next((each for word in _STACKS if (each := set(re.findall(rf"{word}\.(\d{{1,5}})\.", names)))), set())
    found = [number for number in map(int, numbers) if number < MOST_LAYERS]
    if not found:
        raise InputError(f"{header.where}: names no layer of a language model; the index of a checkpoint is needed")
    whole = Tensor("weights", (0,), "other", stored=header.total_bytes)
    return Model(
        architecture="",
        layers=max(found) + 1,
        hidden_size=1,
        heads=1,
        kv_heads=1,
        head_dim=1,
        intermediate_size=1,
        vocab_size=1,
        max_positions=UNKNOWN_LENGTH,
        tied_embeddings=False,
        activation="silu",
        dtype="bf16",
        parts=(Part("language", (whole,), "layers", (Layer("none", ()),) * (max(found) + 1)),),
        basis="header",
        notes=(
            *header.notes,
            "an index names no shapes: it tells neither parameters nor how GPUs share them",
            NO_CACHE.format("its layers"),
        ),
    )


def shard_of(path: Path) -> tuple[int, int] | None:
    """The number of a shard and how many there are, by its name.

    >>> shard_of(Path("model-00002-of-00030.safetensors"))
    (2, 30)
    """
    found = re.fullmatch(r".*-(\d{5})-of-(\d{5})\.safetensors", path.name)
    return (int(found[1]), int(found[2])) if found else None
