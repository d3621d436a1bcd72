"""From a quantisation config to what it does to each tensor.

`quantization_config` stands in config.json, in its text_config, or, from ModelOpt, in hf_quant_config.json beside it.
What the lists leave out, and what a library never touches, stays in the model's own number format: embeddings, norms,
biases, routers, convolutions; GPTQ and AWQ convert the decoder's layers only, the other methods every linear layer.
"""

from collections.abc import Callable

from vlmmem.architectures.fields import Fields
from vlmmem.errors import InputError
from vlmmem.layers import Tensor
from vlmmem.quantization import methods
from vlmmem.quantization.names import Names, spellings
from vlmmem.quantization.storage import Layout
from vlmmem.record import record, replace

__all__ = ["METHODS", "Quantization", "Rule", "read_quantization"]


@record(frozen=True, slots=True)
class Rule:
    """One layout and the modules that it is for; `targets` None means every one that nothing else names."""

    layout: Layout
    targets: Names | None = None


@record(frozen=True, slots=True, eq=False)
class Quantization:
    """What a quantisation config says.

    `method` as the config calls it. `reach` is where matrices are converted: "decoder" (its layers), "linear" (every
    linear layer) or "experts". `head` says whether the output head counts as one. `kept` lists modules that are not
    converted. `kv_cache` is the number format in which it wants the KV cache, or "". `fault` says why its bytes are not
    known here, or is "".

    >>> from vlmmem.architectures.fields import Fields
    >>> config = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}
    >>> found = read_quantization(Fields(config, "config"))
    >>> found.method, found.rules[0].layout.name
    ('awq', 'AWQ, 4 bits')
    """

    method: str
    rules: tuple[Rule, ...]
    reach: str
    kept: Names
    head: bool = False
    kv_cache: str = ""
    fault: str = ""

    @property
    def by_layer(self) -> bool:
        """Whether a list names layers by number, so that layers alike may be stored differently."""
        return self.kept.by_layer or any(rule.targets is not None and rule.targets.by_layer for rule in self.rules)

    def layout(self, name: str, tensor: Tensor, *, in_decoder: bool) -> Layout | None:
        """How the tensor of that full name is stored, or None where it is not converted.

        Args:
            name: its name in transformers.
            tensor: the tensor.
            in_decoder: whether it stands in a layer of the decoder.

        Raises:
            InputError: the bytes of this method are not known here.
        """
        if self.fault:
            raise InputError(self.fault)
        wanted = ("expert",) if self.reach == "experts" else ("linear", "expert", "head")
        if tensor.kind not in wanted or (tensor.kind == "head" and not self.head) or len(tensor.shape) < 2:
            return None
        if self.reach == "decoder" and not in_decoder and tensor.kind != "head":
            return None
        names = spellings(name.removesuffix(".weight"), expert=tensor.kind == "expert" and len(tensor.shape) > 2)
        if self.kept.match(names):
            return None
        for rule in self.rules:
            if rule.targets is None or rule.targets.match(names):
                return rule.layout
        return None


def _unknown(where: str, what: str) -> str:
    return (
        f"{where}: {what}; its bytes are not known from a config: a safetensors header of the checkpoint gives them"
        f" exactly, and so does another number format that is asked for (known methods: {', '.join(METHODS)})"
    )


def _opaque(method: str, fault: str, where: str) -> Quantization:
    return Quantization(method, (), "linear", Names((), "exact", where), fault=fault)


def _count(fields: Fields, name: str, default: int | None, most: int = 1 << 20) -> int:
    return fields.integer(name, default, least=1, most=most)


def _group(fields: Fields, name: str = "group_size", default: int = 128) -> int:
    """Inputs that share a scale; -1 and null mean all, given here as 0."""
    if fields.has(name) and fields.raw(name) in (None, -1, 0):
        return 0
    return _count(fields, name, default)


def _list(fields: Fields, *names: str) -> tuple[str, ...] | None:
    return fields.texts(fields.first(*names))


def _kept(fields: Fields, *names: str) -> tuple[Names, bool]:
    """What transformers leaves alone, and whether the head is converted: it is where a list does not name it."""
    found = _list(fields, *names)
    where = f"{fields.where}: {fields.first(*names)!r}"
    return Names(found or (), "modules", where), found is not None


def _gptq(fields: Fields) -> Quantization:
    method = fields.text("quant_method")
    packing = fields.text(fields.first("checkpoint_format", "packing_format", "format"), "gptq")
    if "awq" in packing:
        return _awq(fields)
    if "gptq" not in packing:
        return _opaque(method, _unknown(fields.where, f"'checkpoint_format' is {packing!r}"), fields.where)
    bits, group = _count(fields, "bits", 4, 8), _group(fields)
    rules: list[Rule] = []
    skipped = list(_list(fields, "modules_to_not_convert") or ())
    if "dynamic" in fields:
        # GPTQModel: "-:pattern" leaves modules alone, "+:pattern" or a plain one gives them settings of their own
        special = fields.sub("dynamic")
        for pattern in special:
            stem = pattern.removeprefix("+:")
            if pattern.startswith("-:"):
                skipped.append(pattern.removeprefix("-:"))
                continue
            own = special.sub(pattern)
            targets = Names([f"re:{stem}"], "exact", special.where)
            rules.append(Rule(methods.gptq(_count(own, "bits", bits, 8), _group(own, default=group or 0)), targets))
    inside = _inside(fields)
    rules.append(Rule(methods.gptq(bits, group), inside))
    kept = Names(skipped, "modules", f"{fields.where}: modules that are not converted")
    return Quantization(method, tuple(rules), "decoder", kept, head=fields.boolean("lm_head"))


def _inside(fields: Fields) -> Names | None:
    """`modules_in_block_to_quantize` of optimum: lists of the endings that are converted, or None for all."""
    found = fields.raw("modules_in_block_to_quantize")
    if found is None:
        return None
    if not isinstance(found, list):
        fields.wrong("modules_in_block_to_quantize", "a list of lists of texts")
    flat = [name for row in found for name in (row if isinstance(row, list) else [row])]
    if not all(isinstance(name, str) for name in flat):
        fields.wrong("modules_in_block_to_quantize", "a list of lists of texts")
    return Names(flat, "modules", f"{fields.where}: 'modules_in_block_to_quantize'")


def _awq(fields: Fields) -> Quantization:
    method = fields.text("quant_method")
    version = fields.text(fields.first("version", "format"), "gemm").lower()
    if version not in ("gemm", "exllama", "ipex", "auto_round:auto_awq", "auto_awq"):
        return _opaque(method, _unknown(fields.where, f"'version' is {version!r}"), fields.where)
    layout = methods.awq(_count(fields, fields.first("bits", "w_bit"), 4, 8), _group(fields))
    kept, _ = _kept(fields, "modules_to_not_convert")
    return Quantization(method, (Rule(layout),), "decoder", kept)


def _bitsandbytes(fields: Fields) -> Quantization:
    kept, head = _kept(fields, "llm_int8_skip_modules")
    if fields.boolean(fields.first("load_in_4bit", "_load_in_4bit")):
        fields.one_of("bnb_4bit_quant_type", ("fp4", "nf4"), "fp4")
        layout = methods.bitsandbytes_4bit(nested=fields.boolean("bnb_4bit_use_double_quant"))
    else:
        layout = methods.bitsandbytes_8bit()
    return Quantization("bitsandbytes", (Rule(layout),), "linear", kept, head=head)


def _block(fields: Fields, name: str) -> tuple[int, int] | None:
    found = fields.integers(name, least=1, length=2)
    return None if found is None else (found[0], found[1])


def _fp8(fields: Fields) -> Quantization:
    static = fields.one_of("activation_scheme", ("dynamic", "static"), "dynamic") == "static"
    block = _block(fields, "weight_block_size")
    narrow = fields.one_of("expert_dtype", ("fp8", "fp4"), "fp8") == "fp4"
    layout = methods.fp8(static=static) if block is None else methods.fp8_blocks(*block, scale_bytes=1 if narrow else 4)
    # transformers would convert a head that the list does not name; published checkpoints keep it all the same
    kept, _ = _kept(fields, "modules_to_not_convert", "ignored_layers")
    rules: tuple[Rule, ...] = (Rule(layout),)
    if narrow:
        # DeepSeek-V4: routed experts in MXFP4, and all scales powers of two that take a byte
        rules = (Rule(methods.mxfp4(), Names([r"re:.*\.experts\."], "exact", fields.where)), *rules)
    return Quantization("fp8", rules, "linear", kept)


def _fbgemm(fields: Fields) -> Quantization:
    kept, _ = _kept(fields, "modules_to_not_convert")
    return Quantization("fbgemm_fp8", (Rule(methods.fp8_rows()),), "decoder", kept)


def _eetq(fields: Fields) -> Quantization:
    kept, head = _kept(fields, "modules_to_not_convert")
    return Quantization("eetq", (Rule(methods.int8_rows()),), "linear", kept, head=head)


def _mxfp4(fields: Fields) -> Quantization:
    kept, _ = _kept(fields, "modules_to_not_convert")
    return Quantization("mxfp4", (Rule(methods.mxfp4()),), "experts", kept)


def _cache(fields: Fields, name: str) -> str:
    """The number format of the KV cache that compressed-tensors' and ModelOpt's configs ask for."""
    if name not in fields:
        return ""
    found = fields.raw(name)
    if isinstance(found, str):
        return {"FP8": "fp8", "NVFP4": "nvfp4", "INT8": "int8"}.get(found.upper(), "")
    scheme = fields.sub(name)
    bits, kind = scheme.integer("num_bits", 8), scheme.text("type", "float")
    return {(8, "float"): "fp8", (8, "int"): "int8", (4, "float"): "nvfp4"}.get((bits, kind), "")


def _compressed(fields: Fields) -> Quantization:
    method = fields.text("quant_method", "compressed-tensors")
    if "sparsity_config" in fields and fields.sub("sparsity_config").text("format", "dense") != "dense":
        what = f"the sparse format {fields.sub('sparsity_config').text('format')!r}"
        return _opaque(method, _unknown(fields.where, what), fields.where)
    form = fields.text("format", "")
    rules = []
    groups = fields.sub("config_groups")
    for name in groups:
        group = groups.sub(name)
        if "weights" not in group:
            continue
        own = group.text("format", form)
        layout = _scheme(group, own)
        if layout is None:
            return _opaque(method, _unknown(group.where, f"the format {own!r}"), fields.where)
        rules.append(Rule(layout, _targets(group)))
    ignore = Names(_list(fields, "ignore", "ignored_layers") or (), "exact", f"{fields.where}: 'ignore'")
    cache = _cache(fields, "kv_cache_scheme")
    return Quantization(method, tuple(rules), "linear", ignore, head=True, kv_cache=cache)


def _targets(group: Fields) -> Names | None:
    """The modules of a group; None where it names the class of linear layers."""
    found = group.texts("targets")
    if found is None or "Linear" in found:
        return None
    return Names(found, "exact", f"{group.where}: 'targets'")


def _scheme(group: Fields, form: str) -> Layout | None:
    weights = group.sub("weights")
    bits = weights.integer("num_bits", 8, most=16)
    kind = weights.one_of("type", ("int", "float"), "int")
    size = _group(weights, default=0) if "group_size" in weights else 0
    block = _block(weights, "block_structure")
    guess = "group" if size else "block" if block else "tensor"
    known = ("tensor", "channel", "group", "tensor_group", "block", "token", "attn_head")
    strategy = weights.one_of("strategy", known, guess)
    symmetric = weights.boolean("symmetric", default=True)
    if strategy in ("group", "tensor_group") and not size:
        weights.wrong("group_size", "a positive integer")
    if strategy == "block" and block is None:
        weights.wrong("block_structure", "two positive integers")
    static = "input_activations" in group and group.sub("input_activations").raw("dynamic") in (False, None)
    if form == "nvfp4-pack-quantized" or (not form and kind == "float" and bits == 4):
        # "local": the scales of groups are dynamic, the one of the whole tensor is not
        held = "input_activations" in group and group.sub("input_activations").raw("dynamic") is not True
        return methods.nvfp4(size or 16, static=held)
    if form == "mxfp4-pack-quantized":
        return methods.mxfp4()
    if form == "pack-quantized" and kind == "int" and bits <= 8 and strategy in ("group", "channel"):
        ordered = weights.raw("actorder") in ("group", True)
        return methods.packed(bits, strategy, size, symmetric=symmetric, ordered=ordered)
    if form in ("float-quantized", "int-quantized", "naive-quantized", "") and bits == 8:
        name = {"float": "FP8", "int": "INT8"}[kind]
        strategy = "group" if strategy == "tensor_group" else strategy
        return methods.plain(name, strategy, size, block or (1, 1), symmetric=symmetric, static=static)
    return None


def _modelopt(fields: Fields, beside: Fields | None) -> Quantization:
    """ModelOpt's own: hf_quant_config.json, or the same facts in config.json."""
    if beside is not None:
        fields = beside.sub("quantization")
    algorithm = fields.text("quant_algo", "").upper()
    kept = _list(fields, "exclude_modules", "ignore")
    names = Names(kept or (), "wildcards", f"{fields.where}: modules that are not converted")
    cache = _cache(fields, fields.first("kv_cache_quant_algo", "kv_cache_scheme"))
    if algorithm == "MIXED_PRECISION":
        rules = []
        layers = fields.sub("quantized_layers")
        chosen: dict[tuple[str, int], list[str]] = {}
        for name in layers:
            own = layers.sub(name)
            chosen.setdefault((own.text("quant_algo").upper(), _group(own, default=16)), []).append(name)
        for (one, size), listed in chosen.items():
            layout = _modelopt_layout(one, size)
            if layout is None:
                return _opaque("modelopt", _unknown(fields.where, f"'quant_algo' is {one!r}"), fields.where)
            rules.append(Rule(layout, Names(listed, "wildcards", layers.where)))
        return Quantization("modelopt", tuple(rules), "linear", names, head=True, kv_cache=cache)
    layout = _modelopt_layout(algorithm, _group(fields, default=16))
    if layout is None:
        return _opaque("modelopt", _unknown(fields.where, f"'quant_algo' is {algorithm!r}"), fields.where)
    # without a list ModelOpt's defaults hold, which leave the head alone
    return Quantization("modelopt", (Rule(layout),), "linear", names, head=kept is not None, kv_cache=cache)


def _modelopt_layout(algorithm: str, group: int) -> Layout | None:
    if algorithm == "FP8":
        return methods.fp8(static=True)
    if algorithm in ("NVFP4", "W4A16_NVFP4"):
        return methods.nvfp4(group or 16, static=algorithm == "NVFP4")
    return None


METHODS: dict[str, Callable[[Fields], Quantization]] = {
    "gptq": _gptq,
    "awq": _awq,
    "auto-round": _gptq,
    "intel/auto-round": _gptq,
    "bitsandbytes": _bitsandbytes,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "compressed-tensors": _compressed,
    "compressed_tensors": _compressed,
    "eetq": _eetq,
    "mxfp4": _mxfp4,
    "modelopt": lambda fields: _modelopt(fields, None),
    "modelopt_fp4": lambda fields: _modelopt(fields, None),
}
"""Methods whose bytes are known from a config, as `quant_method` calls them."""


def read_quantization(fields: Fields, hf_quant_config: object = None) -> Quantization | None:
    """What a config says of quantised weights, or None where it says nothing.

    A method that is not known here is no error until its bytes are asked for.

    Args:
        fields: the whole config.json.
        hf_quant_config: the object in ModelOpt's hf_quant_config.json beside it, or None.

    Raises:
        InputError: a field is missing or wrong, or a list holds what is no pattern or could take long to match.
    """
    if hf_quant_config is not None:
        beside = Fields(hf_quant_config, f"{fields.where}: hf_quant_config")
        if "quantization" in beside:
            return _modelopt(fields, beside)
    found, inside = fields, False
    name = fields.first("quantization_config", "compression_config")
    if name not in fields and "text_config" in fields:
        found, inside = fields.sub("text_config"), True
        name = found.first("quantization_config", "compression_config")
    if name not in found:
        return None
    config = found.sub(name)
    if "quant_method" not in config:
        guess = "bitsandbytes" if "load_in_4bit" in config or "load_in_8bit" in config else "compressed-tensors"
        if guess == "compressed-tensors" and "config_groups" not in config:
            raise InputError(f"{config.where}: 'quant_method' is missing; one of {', '.join(METHODS)} is needed")
        config = config.changed(quant_method=guess)
    method = config.text("quant_method").lower()
    if "expert_dtype" in fields and "expert_dtype" not in config:
        config = config.changed(expert_dtype=fields.raw("expert_dtype"))
    read = METHODS.get(method)
    if read is None:
        return _opaque(method, _unknown(config.where, f"'quant_method' is {method[:60]!r}"), config.where)
    quantised = read(config)
    # What the text model's config says holds for the text model: the tower of Kimi-K2.5 stays as it is.
    return replace(quantised, reach="decoder") if inside and quantised.reach == "linear" else quantised
