"""Memory of the vision side: what an image costs beside its tokens in the KV cache.

Pixel buffers, the activations of the tower at the peak of its pass, the features that wait for the decoder, and the
image tokens' share of the KV cache. The activations are those of `get_image_features` of transformers 5.23.0 on PyTorch
2.13.0 with sdpa, in 16 bits, for images of one size whose pixels come in float32 as processors give them, with the
features of one layer as each family selects them and no crop that is padding: to the byte on every case of
tests/oracle/vision.json, and an error outside the families that were checked. Weights, the pixels as they come,
workspaces and fragmentation are not in them.

Symbols: M images of c crops in the tower's tensor, P patches of a crop, n of them with the class token, N = M c n all
tokens in the tower, p = M c P all patches, X elements of the pixels, H, I and d hidden_size, intermediate_size and head
width of the tower, T hidden_size of the decoder, t its tokens for one image, q = M t; row(x) = 2 x bytes.
Layers hand on one state, so the peak falls into the last one, the embedding or the projector. It is the largest of
moments that stand on what the whole pass keeps (S):

- clip and siglip (llava, llava_next, llava_onevision, paligemma, gemma3, idefics3, smolvlm): mlp
  S + row(4 N H + a N I), a = 3 where the activation is quick_gelu and 2 otherwise; attention S + row(8 N H); embedding
  S + row(X + p H). S is 0; row(2 X), a float32 copy of all crops, in llava_next and
  llava_onevision; row(X) + M c + 8 + X / channels + p in idefics3 and smolvlm, which look for crops that are padding,
  and their selection is row(2 X) + M c + 8.
- internvl: S = row(X); mlp S + row(5 N H + 2 N I); attention S + row(8 N H).
- projector: llava S + row(2 N H + M c H + 2 p T), where H of the class token's pooling falls away with siglip;
  packing in llava_next and llava_onevision S + row(2 N H + M c H + T (p + (M - 1) t + (t - P) + max(t, (c - 1) P)));
  paligemma row(p H + p T); gemma3 row(2 p H + 3 q H + q T), 2 q H for a single image; internvl S +
  row(N H + p H + 2 q T); idefics3 and smolvlm S + row(2 p H + q T).
- qwen2_vl, qwen2_5_vl: S = row(X) + 16 N + 4 (M + 1) + 8 N d, with windows 2 N + 4 (windows + 1) more; rotation of
  queries and keys in float32 S + row(5 N H) + 24 N H; mlp S + row(3 N H + 3 N I); with q = N / merge^2, the projector
  S + row(3 N H + q T), and with windows, where features are put back in order, S + row(N H + 2 q T) + 8 q.
- qwen3_vl: S = row(X) + 64 N + 4 (M + 1) + 4 N H + 8 N d + row(q T) for each layer of deepstack; rotation and
  projector as before; mlp S + row(3 N H + 2 N I).
"""

from vlmmem.catalog import find_model
from vlmmem.errors import InputError
from vlmmem.memory.kv_cache import kv_cache_bytes, state_bytes_per_sequence
from vlmmem.model import Model, VisionTower
from vlmmem.record import record
from vlmmem.workload import check_positive

__all__ = [
    "encoder_cache_bytes",
    "encoder_moments",
    "encoder_peak_bytes",
    "image_kv_bytes",
    "pixel_bytes",
]

_ACTIVATION, _FLOAT32, _INT64, _INT32, _BOOL = 2, 4, 8, 4, 1
_DTYPES = ("bf16", "fp16")

_COPIED = ("llava_next", "llava_onevision")
"""Families that gather the crops of all images in one float32 tensor."""

_SHUFFLED = ("idefics3", "smolvlm")
_ONE_SIZE = ("llava", "paligemma", "gemma3", "internvl", *_COPIED, *_SHUFFLED)
_ANY_SIZE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
_TOWERS = {
    "internvl": ("internvl_vision",),
    "paligemma": ("siglip",),
    "gemma3": ("siglip",),
    "idefics3": ("idefics3",),
    "smolvlm": ("idefics3",),
}
_USUAL_TOWERS = ("clip", "siglip")

# Frames of a patch: an image stands for two (temporal_patch_size of every published config).
_FRAMES = 2
_NEIGHBOURS = 4
"""Learned positions that Qwen3-VL blends for one patch."""


def pixel_bytes(pixel_values: int, images: int = 1, bytes_per_element: int = _FLOAT32) -> int:
    """Bytes of the pixels that the tower takes, as the processor gives them.

    Args:
        pixel_values: elements of one image's tensor, crops and padding included (`image_tokens`).
        images: images of that size.
        bytes_per_element: 4 for the float32 that processors of transformers give, 2 where they are cast.

    Raises:
        InputError: an argument is not a positive integer.

    >>> pixel_bytes(3 * 336 * 336)
    1354752
    """
    values = {"pixel_values": pixel_values, "images": images, "bytes_per_element": bytes_per_element}
    for name, value in values.items():
        check_positive(name, value)
    return pixel_values * images * bytes_per_element


def encoder_peak_bytes(
    model: str | Model,
    images: int = 1,
    *,
    crops: int = 1,
    tokens: int | None = None,
    grid: tuple[int, int] | None = None,
    dtype: str = "bf16",
) -> int:
    """Bytes at the peak of the pass that makes features of images, over the weights and the pixels as they come.

    Args:
        model: a model or its name.
        images: images in the pass, all of one size.
        crops: pieces of one image in the tower's tensor, for towers that take pieces of one size.
        tokens: tokens of the decoder that one image becomes, for towers that take pieces of one size.
        grid: rows and columns of patches of one image, for towers that take images of any size.
        dtype: "bf16" or "fp16".

    Raises:
        InputError: the model's tower was not checked, a count is missing or not a positive integer.

    Source: tests/oracle/vision.json, written by `make oracle` from passes of transformers 5.23.0.

    >>> encoder_peak_bytes("llava-1.5-7b", tokens=576)
    18907136
    """
    return max(encoder_moments(model, images, crops=crops, tokens=tokens, grid=grid, dtype=dtype).values())


def encoder_moments(
    model: str | Model,
    images: int = 1,
    *,
    crops: int = 1,
    tokens: int | None = None,
    grid: tuple[int, int] | None = None,
    dtype: str = "bf16",
) -> dict[str, int]:
    """Bytes in each moment of that pass that may be its peak; the arguments of `encoder_peak_bytes`.

    >>> encoder_moments("qwen2-vl-7b", grid=(36, 52))["rotation"]
    87100424
    """
    shape = find_model(model) if isinstance(model, str) else model
    family = shape.architecture
    tower = shape.vision
    if tower is None or family not in (*_ONE_SIZE, *_ANY_SIZE):
        raise InputError(
            f"{shape.id or family}: the activations of its vision tower were not checked; "
            f"a model of {', '.join((*_ONE_SIZE, *_ANY_SIZE))} is needed"
        )
    if dtype not in _DTYPES:
        raise InputError(f"dtype: {dtype!r} was given; one of {', '.join(_DTYPES)} is needed")
    check_positive("images", images)
    if family in _ANY_SIZE:
        return _any_size(shape, tower, images, grid)
    check_positive("crops", crops)
    if tokens is None:
        raise InputError("tokens: None was given; the decoder's tokens of one image are needed")
    check_positive("tokens", tokens)
    return _one_size(shape, tower, _Crops(images, crops, tokens))


@record(frozen=True, slots=True)
class _Crops:
    images: int
    each: int
    tokens: int

    @property
    def count(self) -> int:
        return self.images * self.each


def _row(values: int) -> int:
    return _ACTIVATION * values


def _one_size(model: Model, tower: VisionTower, crops: _Crops) -> dict[str, int]:
    family, hidden, wide = model.architecture, tower.hidden_size, tower.intermediate_size
    if tower.architecture not in _TOWERS.get(family, _USUAL_TOWERS) or tower.head_norms:
        raise InputError(
            f"{model.id or family}: a tower {tower.architecture!r} in it was not checked; "
            f"one of {', '.join(_TOWERS.get(family, _USUAL_TOWERS))} without norms of heads is needed"
        )
    count, text = crops.count, model.hidden_size
    patches = count * tower.patches
    pixels = count * tower.channels * tower.image_size**2
    classed = count if tower.architecture in ("clip", "internvl_vision") else 0
    seen = patches + classed
    made = crops.images * crops.tokens
    if family == "internvl":
        kept = _row(pixels)
        return {
            "attention": kept + _row(8 * seen * hidden),
            "mlp": kept + _row(5 * seen * hidden + 2 * seen * wide),
            "projector": kept + _row(seen * hidden + patches * hidden + 2 * made * text),
        }
    kept = 0
    moments: dict[str, int] = {}
    if family in _COPIED:
        kept = _FLOAT32 * pixels
    if family in _SHUFFLED:
        looked = _BOOL * count + _INT64
        kept = looked + _row(pixels) + _BOOL * (pixels // tower.channels) + _BOOL * patches
        moments["selection"] = looked + _row(2 * pixels)
        moments["projector"] = kept + _row(2 * patches * hidden + made * text)
    else:
        moments["embedding"] = kept + _row(pixels + patches * hidden)
    if family == "paligemma":
        moments["projector"] = _row(patches * hidden + patches * text)
    elif family == "gemma3":
        # what is pooled lies in rows already where there is one image
        pooled = 3 if count > 1 else 2
        moments["projector"] = _row(2 * patches * hidden + pooled * made * hidden + made * text)
    elif family not in _SHUFFLED:
        features = kept + _row(2 * seen * hidden + classed * hidden)
        moments["projector"] = features + _row(2 * patches * text)
        if family in _COPIED:
            moments["packing"] = features + _row(_packed(tower, crops) * text)
    gates = 3 if tower.activation == "quick_gelu" else 2
    return moments | {
        "attention": kept + _row(8 * seen * hidden),
        "mlp": kept + _row(4 * seen * hidden + gates * seen * wide),
    }


def _packed(tower: VisionTower, crops: _Crops) -> int:
    """Features alive where the last image's rows are put together, its padding taken off."""
    grid = crops.tokens - tower.patches
    before = crops.count * tower.patches + (crops.images - 1) * crops.tokens
    return before + grid + max(crops.tokens, (crops.each - 1) * tower.patches)


def _any_size(model: Model, tower: VisionTower, images: int, grid: tuple[int, int] | None) -> dict[str, int]:
    if grid is None:
        raise InputError(
            f"grid: {model.id or model.architecture} takes images of any size; rows and columns are needed"
        )
    rows, columns = grid
    for name, value in (("rows", rows), ("columns", columns)):
        check_positive(f"grid: {name}", value)
        if value % tower.merge:
            raise InputError(f"grid: {value} {name} were given; a multiple of {tower.merge} is needed")
    seen = images * rows * columns
    hidden, wide = tower.hidden_size, tower.intermediate_size
    pixels = seen * tower.channels * _FRAMES * tower.patch_size**2
    # rows, columns and sequence ends as integers, cosines and sines in full precision
    kept = _row(pixels) + _INT64 * 2 * seen + _INT32 * (images + 1) + _FLOAT32 * 2 * seen * (hidden // tower.heads)
    gates = 3
    merged = seen // tower.merge**2
    after: dict[str, int] = {}
    if model.architecture == "qwen2_5_vl":
        side = tower.window // tower.merge // tower.patch_size
        # a side that windows divide is padded by a whole window all the same
        windows = (rows // tower.merge // side + 1) * (columns // tower.merge // side + 1)
        kept += _INT64 * merged + _INT32 * (images * windows + 1)
        # features are put back in the order of the image
        after["order"] = kept + _INT64 * merged + _row(seen * hidden + 2 * merged * model.hidden_size)
    elif model.architecture != "qwen2_vl":
        gates = 2
        kept += (_INT64 + _FLOAT32) * _NEIGHBOURS * seen + _FLOAT32 * seen * hidden
        kept += tower.deepstack * _row(merged * model.hidden_size)
    if not after:
        after["projector"] = kept + _row(3 * seen * hidden + merged * model.hidden_size)
    return after | {
        "rotation": kept + _row(5 * seen * hidden) + 6 * _FLOAT32 * seen * hidden,
        "mlp": kept + _row(3 * seen * hidden + gates * seen * wide),
    }


def encoder_cache_bytes(model: str | Model, tokens: int, bytes_per_element: int = _ACTIVATION) -> int:
    """Bytes of the features that wait for the decoder: one vector of its hidden size a token.

    Qwen3-VL keeps one vector more for each layer of its deepstack.

    Args:
        model: a model or its name.
        tokens: image tokens, of all images that wait.
        bytes_per_element: of a feature; 2 in 16 bits.

    Raises:
        InputError: the model has no vision tower, or a count is not a positive integer.

    >>> encoder_cache_bytes("llava-1.5-7b", 576)
    4718592
    """
    shape = find_model(model) if isinstance(model, str) else model
    if shape.vision is None:
        raise InputError(f"{shape.id or shape.architecture} has no vision tower; a model that sees is needed")
    check_positive("tokens", tokens)
    check_positive("bytes_per_element", bytes_per_element)
    return tokens * shape.hidden_size * (1 + shape.vision.deepstack) * bytes_per_element


def image_kv_bytes(model: str | Model, context: int, tokens: int, kv_dtype: str = "bf16") -> int:
    """Bytes of the KV cache of one sequence that are there because of its image tokens.

    The difference between the cache of the whole sequence and that of its text alone; where a sliding window is full
    of text anyway, images add nothing to it. States of cross-attention are not in it: see `state_bytes_per_sequence`.

    Args:
        model: a model or its name.
        context: tokens of the sequence, those of images among them.
        tokens: image tokens in it.
        kv_dtype: number format of the cache.

    Raises:
        InputError: more image tokens than context, or an argument is not a positive integer.

    >>> image_kv_bytes("llava-1.5-7b", 4096, 576) == 576 * 524288
    True
    """
    check_positive("context", context)
    check_positive("tokens", tokens)
    if tokens > context:
        raise InputError(f"tokens: {tokens} image tokens were given; no more than the context of {context} are needed")
    whole = kv_cache_bytes(model, context, kv_dtype=kv_dtype)
    if tokens == context:
        return whole - state_bytes_per_sequence(model, kv_dtype)
    return whole - kv_cache_bytes(model, context - tokens, kv_dtype=kv_dtype)
