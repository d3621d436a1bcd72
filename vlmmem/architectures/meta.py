"""Models that only transformers knows: its class, built on PyTorch's meta device, where tensors have no memory.

For a model_type that no builder here knows, and where the extra `transformers` is installed. The class is that of the
installed transformers, chosen by model_type alone: `auto_map` is ignored, no code that comes with a model is run, and
nothing is fetched. What each layer keeps of a sequence is what the class's own cache object holds after a pass over
two tokens (transformers, cache_utils.py), which on the meta device costs no memory either.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from vlmmem.errors import InputError
from vlmmem.layers import Cache, KeyValueCache, LatentCache, Layer, Part, StateCache, Tensor
from vlmmem.model import Model, VisionTower
from vlmmem.readers.names import place

__all__ = ["available", "build_on_meta", "caches_of", "check_size", "quiet"]

MOST_LAYERS = 512
"""Layers of one stack: each is some modules, built one by one."""

MOST_MODULES = 1 << 17
"""Layers times experts: some classes build each expert as modules of its own."""

LARGEST = 1 << 31
"""Of any number in the config."""

LONGEST = 1 << 25
"""Positions: some classes fill a table with as many rows."""

_LAYERS = re.compile(r"(?:.*_)?(?:layers?|depths?|blocks|layer_types)")
_EXPERTS = re.compile(r"(?:.*_)?experts")
_POSITIONS = re.compile(r".*position.*|.*seq_len.*|n_ctx|max_seq.*")
_DROPPED = ("auto_map", "quantization_config", "compression_config", "_name_or_path", "use_pretrained_backbone")
_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_TOKENS = 2
_LONGEST_ERROR = 160


def available() -> bool:
    """Whether transformers and PyTorch are installed."""
    return find_spec("transformers") is not None and find_spec("torch") is not None


def _bounded(config: object, where: str, path: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    """The whole numbers of a config with their names; refuses those that no model has."""
    if depth > 16:
        raise InputError(f"{where}: {path} is nested too deeply; a few levels are needed")
    if isinstance(config, dict):
        for name, value in config.items():
            yield from _bounded(value, where, str(name)[:40], depth + 1)
    elif isinstance(config, list):
        if len(config) > 8 * MOST_LAYERS and _LAYERS.fullmatch(path):
            raise InputError(f"{where}: {path!r} has {len(config):,} items; one a layer is needed")
        for value in config:
            yield from _bounded(value, where, path, depth + 1)
    elif isinstance(config, int) and not isinstance(config, bool):
        most = MOST_LAYERS if _LAYERS.fullmatch(path) else LONGEST if _POSITIONS.fullmatch(path) else LARGEST
        if abs(config) > most and not path.endswith("token_id"):
            raise InputError(f"{where}: {path!r} is {str(config)[:40]}; a number of at most {most:,} is needed")
        yield path, config


def check_size(config: dict[str, Any], where: str) -> None:
    """Refuse a config whose class would take unbounded time or memory to build.

    Args:
        config: the object in a config.json.
        where: how errors call it.

    Raises:
        InputError: a number is larger than any model's, or there are too many layers of experts.
    """
    numbers = list(_bounded(config, where))
    layers = max((value for name, value in numbers if _LAYERS.fullmatch(name)), default=1)
    experts = max((value for name, value in numbers if _EXPERTS.fullmatch(name)), default=1)
    if layers * experts > MOST_MODULES:
        raise InputError(
            f"{where}: {layers} layers of {experts} experts are too many; at most {MOST_MODULES:,} in all are needed"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers logs and warns of: the answer is an error or a model."""
    import warnings

    import transformers

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(before)


def build_on_meta(config: dict[str, Any], where: str) -> Model:
    """The model of a config whose model_type transformers knows.

    Args:
        config: the object in a config.json.
        where: how errors call it.

    Raises:
        InputError: transformers does not know the model_type either, a number is out of bounds, or its class cannot be
            built from these fields.
    """
    import transformers

    kind = config.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise InputError(
            f"{where}: 'model_type' {str(kind)[:60]!r} is known neither here nor to transformers "
            f"{transformers.__version__}; a safetensors or GGUF header gives its bytes exactly"
        )
    check_size(config, where)
    with quiet():
        try:
            module = _module(config)
            return _model(module, str(kind), f"its tensors are those of transformers {transformers.__version__}")
        except InputError:
            raise
        except Exception as error:  # whatever a class of transformers raises for a config that it refuses
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_ERROR]
            raise InputError(
                f"{where}: transformers {transformers.__version__} cannot build {str(kind)[:60]!r} ({reason}); "
                "a config that its class takes is needed"
            ) from None


def _module(config: dict[str, Any]) -> Any:
    import torch
    import transformers

    fields = {name: value for name, value in config.items() if name not in (*_DROPPED, "model_type")}
    parsed = transformers.AutoConfig.for_model(config["model_type"], **fields)
    with torch.device("meta"):
        for auto in (transformers.AutoModelForImageTextToText, transformers.AutoModelForCausalLM):
            if type(parsed) in auto._model_mapping:
                # on the meta device no token can be sent to an expert by its value; this way all are gathered
                return auto.from_config(parsed, experts_implementation="batched_mm", dtype=torch.bfloat16)
    raise ValueError("it has no class that generates text")


def caches_of(module: Any) -> list[tuple[Cache, ...]]:
    """What each layer of a class keeps: read off its own cache object after a pass over two tokens.

    Raises:
        Exception: whatever the class raises where its pass needs values, which tensors on the meta device lack.
    """
    import torch
    import transformers

    text = module.config.get_text_config(decoder=True)
    cache = transformers.DynamicCache(config=text)
    ids = torch.zeros((1, _TOKENS), dtype=torch.long, device="meta")
    with torch.no_grad(), torch.device("meta"):
        module.eval()(input_ids=ids, past_key_values=cache, use_cache=True)
    types = list(getattr(text, "layer_types", None) or [])
    found: list[tuple[Cache, ...]] = []
    for index, layer in enumerate(cache.layers):
        held: list[Cache] = []
        keys: Any = getattr(layer, "keys", None)
        values: Any = getattr(layer, "values", None)
        if keys is not None and keys.dim() == 4:
            if getattr(text, "kv_lora_rank", None) and keys.shape[1] == 1:
                found.append((LatentCache(keys.shape[3] + values.shape[3]),))
                continue
            limit = getattr(layer, "sliding_window", None)
            chunked = index < len(types) and types[index] == "chunked_attention"
            held.append(
                KeyValueCache(
                    heads=keys.shape[1],
                    key_dim=keys.shape[3],
                    value_dim=values.shape[3],
                    window=None if chunked else limit,
                    chunk=limit if chunked else None,
                )
            )
        for what, name in (("convolution", "conv_states"), ("recurrent", "recurrent_states")):
            states = getattr(layer, name, None)
            each = states.values() if isinstance(states, dict) else states if isinstance(states, list) else [states]
            for state in each:
                if state is not None:
                    dtype = _DTYPES.get(str(state.dtype).removeprefix("torch."), "")
                    held.append(StateCache(state[0].numel(), dtype if dtype == "fp32" else "", 1, what))
        found.append(tuple(held))
    return found


def _number(config: Any, *names: str, default: int = 0) -> int:
    """The first of some attributes that is a whole number."""
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return default


def _sorted(module: Any) -> tuple[dict[str, list[Tensor]], dict[tuple[str, str], dict[int, list[Tensor]]]]:
    """A class's tensors outside its layers, by part, and inside, by part and stack and layer."""
    outside: dict[str, list[Tensor]] = {}
    stacks: dict[tuple[str, str], dict[int, list[Tensor]]] = {}
    for name, parameter in module.named_parameters():
        spot = place(name)
        shape = tuple(parameter.shape)
        kind = spot.kind
        if kind == "other" and len(shape) > 1:
            kind = "linear"
        if kind == "buffer" or (kind in ("linear", "expert", "router") and len(shape) < 2):
            kind = "other"
        tensor = Tensor(spot.name, shape, kind, spot.cut)
        if spot.layer is None:
            outside.setdefault(spot.part, []).append(tensor)
        else:
            stacks.setdefault((spot.part, spot.stack), {}).setdefault(spot.layer, []).append(tensor)
    return outside, stacks


def _layers(by_index: dict[int, list[Tensor]], caches: list[tuple[Cache, ...]]) -> tuple[Layer, ...]:
    alike: dict[tuple[object, ...], Layer] = {}
    found = []
    for index in range(max(len(caches), *(spot + 1 for spot in by_index))):
        kept = caches[index] if index < len(caches) else ()
        tensors = tuple(by_index.get(index, ()))
        key = (tensors, kept)
        found.append(alike.setdefault(key, Layer(_kind(tensors, kept), tensors, kept)))
    return tuple(found)


def _kind(tensors: tuple[Tensor, ...], caches: tuple[Cache, ...]) -> str:
    for cache in caches:
        if isinstance(cache, KeyValueCache):
            return "sliding" if cache.window else "chunked" if cache.chunk else "full"
        if isinstance(cache, LatentCache):
            return "latent"
    if caches:
        return "linear"
    return "mlp" if tensors else "none"


def _from_config(text: Any, depth: int) -> list[tuple[Cache, ...]]:
    """Caches by the config's fields alone, for a class whose pass needs values."""
    heads = _number(text, "num_attention_heads", default=1)
    width = _number(text, "head_dim") or _number(text, "hidden_size") // heads
    types = list(getattr(text, "layer_types", None) or ["full_attention"] * depth)
    if not set(types) <= {"full_attention", "sliding_attention"} or len(types) != depth or width < 1:
        raise InputError(
            f"what the layers of {text.model_type!r} keep of a sequence is not known here; a header or a builder is"
        )
    own = _number(text, "num_key_value_heads", default=heads)
    window = _number(text, "sliding_window") or None
    return [(KeyValueCache(own, width, width, window if kind == "sliding_attention" else None),) for kind in types]


def _model(module: Any, kind: str, note: str) -> Model:
    config, text = module.config, module.config.get_text_config(decoder=True)
    outside, stacks = _sorted(module)
    decoder = max(
        (key for key in stacks if key[0] == "language"),
        key=lambda key: sum(tensor.parameters for own in stacks[key].values() for tensor in own),
        default=None,
    )
    if decoder is None:
        raise InputError(f"the class of {kind!r} has no layers of a language model; a model that generates is needed")
    notes: tuple[str, ...] = (note,)
    depth = max(stacks[decoder]) + 1
    try:
        caches = caches_of(module)
    except Exception:  # its pass needs values: a mask that looks at them, an index, an assertion
        caches = _from_config(text, depth)
        notes = (*notes, "approximate: its caches follow the config's fields, not the class's own cache")
    parts = []
    for name in dict.fromkeys(["language", *(part for part, _ in stacks), *outside]):
        around = tuple(outside.get(name, ()))
        for key in sorted((key for key in stacks if key[0] == name), key=lambda key: key != decoder):
            own = _layers(stacks[key], caches if key == decoder else [])
            parts.append(Part(name, around, key[1], own))
            around = ()
        if around:
            parts.append(Part(name, around))
    heads = _number(text, "num_attention_heads", default=1)
    cache = next((each for kept in caches for each in kept if isinstance(each, KeyValueCache)), None)
    kv_heads = cache.heads if cache else _number(text, "num_key_value_heads", default=heads)
    hidden = _number(text, "hidden_size", "d_model", default=1)
    dtype = _DTYPES.get(str(getattr(config, "dtype", None) or "bfloat16").removeprefix("torch."), "bf16")
    return Model(
        architecture=kind,
        layers=depth,
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=cache.key_dim if cache else max(1, hidden // max(1, heads)),
        intermediate_size=_number(text, "intermediate_size", "ffn_dim", "d_ff", "ffn_hidden_size", default=4 * hidden),
        vocab_size=_number(text, "vocab_size", default=1),
        max_positions=_number(text, "max_position_embeddings", "n_positions", "max_seq_len", default=1 << 20),
        tied_embeddings=bool(getattr(config, "tie_word_embeddings", False)),
        activation=str(getattr(text, "hidden_act", None) or getattr(text, "activation_function", None) or "silu"),
        dtype=dtype,
        parts=tuple(parts),
        vision=_tower(getattr(config, "vision_config", None)),
        experts=_number(text, "num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts"),
        active_experts=_number(text, "num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts"),
        notes=notes,
    )


def _tower(config: Any) -> VisionTower | None:
    """The shape of a vision tower, where its config names all of it."""
    if config is None:
        return None
    found: dict[str, Any] = {
        "layers": _number(config, "num_hidden_layers", "depth"),
        "hidden_size": _number(config, "hidden_size", "embed_dim"),
        "heads": _number(config, "num_attention_heads", "num_heads"),
        "intermediate_size": _number(config, "intermediate_size"),
        "image_size": _number(config, "image_size"),
        "patch_size": _number(config, "patch_size"),
    }
    if not all(found.values()):
        return None
    channels = _number(config, "num_channels", "in_channels", default=3)
    return VisionTower(str(config.model_type), channels=channels, **found)
