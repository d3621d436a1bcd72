"""The class that transformers has for a config, built with random weights, and what its passes take and keep.

Nothing is fetched and no code that comes with a model is run: the class is that of the installed transformers, chosen
by model_type. Quantised checkpoints are built as their class stands, in 16 or 32 bits.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from vlmmem.architectures.meta import check_size, quiet
from vlmmem.errors import InputError
from vlmmem.images import ImageTokens
from vlmmem.model import Model

__all__ = [
    "DTYPES",
    "IMAGE_FAMILIES",
    "TEXT",
    "build",
    "cached",
    "default_dtype",
    "depth_of",
    "inputs",
    "out_of_memory",
    "period",
    "with_layers",
]

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""Number formats in which a model is built: ours and PyTorch's name."""

TEXT = 5
"""The id of a token that no family takes for an image or a marker."""

IMAGE_FAMILIES = ("llava", "gemma3", "paligemma", "internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Families whose pixels are made here as their processors make them."""

_GRIDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
_FRAMES = 2  # an image stands for two (temporal_patch_size of every published config)
_DROPPED = ("auto_map", "quantization_config", "compression_config", "_name_or_path", "dtype", "torch_dtype")
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_LISTS = ("layer_types", "no_rope_layers", "mlp_layer_types", "attn_type_list", "hybrid_override_pattern")
# Kinds that stand at places which a config counts from the first layer: a part would have others.
_PLACED = ("first_k_dense_replace", "num_kv_shared_layers", "attn_layer_indices", "cross_attention_layers")
_LONGEST_ERROR = 160


def depth_of(model: Model) -> int:
    """Layers of the decoder."""
    return len(model.decoder.layers)


def period(model: Model) -> int:
    """After how many layers the kinds of a decoder's layers repeat, counted from its end.

    >>> from vlmmem import find_model
    >>> period(find_model("llama-3.1-70b")), period(find_model("gemma-3-27b"))
    (1, 6)
    """
    layers = [(layer.kind, layer.tensors, layer.caches) for layer in model.decoder.layers]
    for length in range(1, len(layers)):
        if all(layers[at] == layers[at + length] for at in range(len(layers) - length)):
            return length
    return len(layers)


def with_layers(config: Mapping[str, Any], model: Model, layers: int) -> dict[str, Any]:
    """A config of the same model with fewer layers, of the kinds that stand first, as many of each as there are.

    Args:
        config: the object in a config.json.
        model: the model that it describes.
        layers: layers of the decoder to build.

    Raises:
        InputError: so many layers do not end as the whole model does, or the config cannot be cut.

    >>> from vlmmem import find_model
    >>> from vlmmem.catalog import model_facts
    >>> with_layers(model_facts("llama-3.1-70b")["config"], find_model("llama-3.1-70b"), 4)["num_hidden_layers"]
    4
    """
    whole, every = depth_of(model), period(model)
    if layers == whole:
        return dict(config)
    if layers > whole or layers < 1 or (whole - layers) % every or layers < every:
        possible = [str(count) for count in range(whole % every or every, whole, every) if count >= every][:4]
        needed = f"{', '.join(possible)} and so on" if possible else f"all {whole}"
        raise InputError(
            f"layers: {layers} of {whole} layers of {model.id or model.architecture} were asked for, whose kinds "
            f"repeat every {every}; {needed} are possible"
        )
    found = deepcopy(dict(config))
    text: dict[str, Any] = found["text_config"] if isinstance(found.get("text_config"), dict) else found
    placed = [name for name in _PLACED if text.get(name)]
    if placed:
        raise InputError(f"layers: the config counts places of layers ({placed[0]}); the whole model is needed")
    for name in _DEPTHS:
        if name in text:
            text[name] = layers
    for name in _LISTS:
        if text.get(name):
            text[name] = text[name][:layers]
    if not any(name in text for name in _DEPTHS):
        text["num_hidden_layers"] = layers
    return found


def build(config: Mapping[str, Any], dtype: str, where: str, *, values: bool) -> Any:
    """The model that transformers builds for a config, on PyTorch's current device and mode.

    Args:
        config: the object in a config.json.
        dtype: a name of `DTYPES`.
        where: how errors call the config.
        values: whether weights get the random values that the class draws; fake tensors have none.

    Raises:
        InputError: transformers does not know the model_type, or its class refuses the fields.
    """
    from contextlib import nullcontext

    import torch
    import transformers
    from transformers import initialization

    kind = config.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise InputError(f"{where}: transformers {transformers.__version__} has no class for model_type {kind!r:.60}")
    check_size(dict(config), where)
    fields = {name: value for name, value in config.items() if name not in (*_DROPPED, "model_type")}
    if isinstance(fields.get("text_config"), dict):
        # the dtype of the whole, as from_pretrained gives it to every part
        fields["text_config"] = {k: v for k, v in fields["text_config"].items() if k not in _DROPPED}
    if kind == "phi3":
        fields.setdefault("pad_token_id", 0)  # the class's own stands beyond a small vocabulary
    number = getattr(torch, DTYPES[dtype])
    with quiet():
        try:
            parsed = transformers.AutoConfig.for_model(kind, **fields)
            autos = (transformers.AutoModelForImageTextToText, transformers.AutoModelForCausalLM)
            auto = next((each for each in autos if type(parsed) in each._model_mapping), None)
            if auto is None:
                raise InputError(f"{where}: transformers has no class for {kind!r:.60} that generates text")
            with default_dtype(number), nullcontext() if values else initialization.no_init_weights():
                network = auto.from_config(parsed, dtype=number).eval()
            network.tie_weights()  # without initial values a class leaves that out
        except (InputError, MemoryError):
            raise
        except Exception as error:  # whatever a class of transformers raises for a config that it refuses
            if out_of_memory(error):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_ERROR]
            raise InputError(
                f"{where}: transformers {transformers.__version__} cannot build {kind!r:.60} ({reason}); "
                "a config that its class takes is needed"
            ) from None
    return network


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of PyTorch says that memory was not enough, on a GPU or on the host."""
    import torch

    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
    )


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    """PyTorch's default number format, for what a class makes without naming one."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def inputs(network: Any, context: int, batch: int, images: int, image: ImageTokens | None) -> dict[str, Any]:
    """What a processor hands to a pass: token ids and, with images, pixels in float32 and what stands beside them.

    Args:
        network: the built model.
        context: tokens of a sequence, those of images among them.
        batch: sequences.
        images: images of each sequence.
        image: the counts of one.

    Returns:
        The named arguments of the pass, on PyTorch's current device.

    Raises:
        InputError: the family's pixels are not made here, or the images have more tokens than the context.
    """
    import torch

    ids = torch.full((batch, context), TEXT, dtype=torch.long)
    given = {"input_ids": ids}
    if image is None or not images:
        return given
    family = network.config.model_type
    if family not in IMAGE_FAMILIES:
        raise InputError(f"images: those of {family} are not made here; {', '.join(IMAGE_FAMILIES)} are")
    placed = images * image.tokens
    if placed > context:
        raise InputError(
            f"images: {images} of {image.tokens:,} tokens each are more than the context of {context:,}; "
            f"a context of {placed:,} or more is needed"
        )
    # one token before each image, so that two images are two; where there is no room they stand side by side
    gap = 1 if context >= placed + images else 0
    token = getattr(network.config, "image_token_id", None) or network.config.image_token_index
    kinds = torch.zeros((batch, context), dtype=torch.long)
    for at in range(images):
        first = at * (image.tokens + gap) + gap
        ids[:, first : first + image.tokens] = token
        kinds[:, first : first + image.tokens] = 1
    tower = network.config.vision_config
    count = batch * images
    if family in _GRIDS:
        assert image.grid is not None
        rows, columns = image.grid
        channels = getattr(tower, "in_channels", 3)
        values = channels * _FRAMES * tower.patch_size**2
        given["pixel_values"] = torch.zeros((count * rows * columns, values), dtype=torch.float32)
        given["image_grid_thw"] = torch.tensor([[1, rows, columns]] * count)
        given["mm_token_type_ids"] = kinds
        return given
    side = tower.image_size[0] if isinstance(tower.image_size, list | tuple) else tower.image_size
    channels = getattr(tower, "num_channels", 3)
    given["pixel_values"] = torch.zeros((count * image.crops, channels, side, side), dtype=torch.float32)
    if family in ("gemma3", "paligemma"):
        given["token_type_ids"] = kinds
    return given


def cached(cache: Any, depth: int = 3) -> Iterator[Any]:
    """Every tensor that a cache object of transformers holds, layer by layer.

    A generator, which leaves no cycle behind: a cycle would keep the tensors until Python looks for it.
    """
    import torch

    if isinstance(cache, torch.Tensor):
        yield cache
    elif isinstance(cache, dict):
        for each in cache.values():
            yield from cached(each, depth)
    elif isinstance(cache, list | tuple):
        for each in cache:
            yield from cached(each, depth)
    elif depth and hasattr(cache, "__dict__"):
        yield from cached(list(vars(cache).values()), depth - 1)
