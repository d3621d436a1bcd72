"""The catalogue: models, GPUs and number formats as data, each value with its source.

Names resolve in any case; a model's hub id and its aliases mean the same as its id.
"""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from vlmmem.architectures import build as build_model
from vlmmem.catalog.entries import Entry, read_entries
from vlmmem.errors import InputError
from vlmmem.formats import SCOPES, Format
from vlmmem.hardware import BASES, Gpu, Link, Runtime
from vlmmem.model import Model
from vlmmem.record import replace

__all__ = [
    "find_format",
    "find_gpu",
    "find_link",
    "find_model",
    "find_runtime",
    "formats",
    "gpus",
    "likely_peaks",
    "links",
    "load_formats",
    "load_gpus",
    "load_links",
    "load_models",
    "load_runtimes",
    "load_stated_models",
    "model_facts",
    "models",
    "runtimes",
    "stated_models",
]

_HERE = Path(__file__).parent
_LONGEST_NAME = 100


class _Named(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...


N = TypeVar("N", bound=_Named)


def _load(path: Path, root: str, build: Callable[[Entry], N]) -> tuple[N, ...]:
    found: list[N] = []
    owner: dict[str, str] = {}
    for entry in read_entries(path, root):
        item = _built(entry, path, build)
        _own(owner, item.id, _names(item), entry.where)
        found.append(item)
    return tuple(found)


def _built(entry: Entry, path: Path, build: Callable[[Entry], N]) -> N:
    try:
        item = build(entry)
    except InputError as error:
        line = str(error)
        raise InputError(line if line.startswith(path.name) else f"{path.name}: {line}") from None
    entry.done()
    return item


def _own(owner: dict[str, str], item: str, names: Iterable[str], where: str) -> None:
    for name in names:
        if name in owner:
            raise InputError(f"{where}: the name {name!r} also means {owner[name]!r}; one meaning is needed")
        owner[name] = item


def _names(item: _Named) -> set[str]:
    names = {item.id, *item.aliases}
    hub_id = getattr(item, "hub_id", None)
    if hub_id is not None:
        names.add(hub_id)
    return {name.lower() for name in names}


def _model(entry: Entry) -> Model:
    identity = {
        "id": entry.text("id"),
        "name": entry.text("name"),
        "hub_id": entry.optional_text("hub_id"),
        "aliases": entry.texts("aliases"),
        "nominal_parameters": entry.integer("nominal_parameters"),
        "sources": entry.sources(),
    }
    if entry.has("published_parameters"):  # a fact that the tests compare with what is built
        entry.value("published_parameters")
    beside = entry.value("hf_quant_config") if entry.has("hf_quant_config") else None
    built = build_model(entry.value("config"), f"{entry.where}: config", beside)
    return replace(built, **identity)  # type: ignore[arg-type]


def _gpu(entry: Entry) -> Gpu:
    return Gpu(
        id=entry.text("id"),
        name=entry.text("name"),
        aliases=entry.texts("aliases"),
        vendor=entry.text("vendor"),
        memory_bytes=entry.integer("memory_bytes"),
        memory_basis=entry.one_of("memory_basis", BASES),
        cuda_memory_bytes=entry.optional_integer("cuda_memory_bytes"),
        vendor_gb=entry.integer("vendor_gb"),
        memory_type=entry.text("memory_type"),
        bus_width_bits=entry.optional_integer("bus_width_bits"),
        bandwidth=entry.integer("bandwidth"),
        flops_16bit=entry.integer("flops_16bit"),
        l2_bytes=entry.integer("l2_bytes"),
        multiprocessors=entry.integer("multiprocessors"),
        sram_bytes=entry.integer("sram_bytes"),
        sram_latency_ps=entry.optional_integer("sram_latency_ps"),
        l2_latency_ps=entry.optional_integer("l2_latency_ps"),
        memory_latency_ps=entry.optional_integer("memory_latency_ps"),
        sources=entry.sources(),
    )


def _format(entry: Entry) -> Format:
    return Format(
        id=entry.text("id"),
        name=entry.text("name"),
        aliases=entry.texts("aliases"),
        bits=entry.bits("bits"),
        row_bits=entry.optional_integer("row_bits") or 0,
        scope=entry.one_of("scope", SCOPES),
        kv_cache=entry.boolean("kv_cache"),
        formula=entry.text("bits"),
        block=entry.integer("block") if entry.has("block") else 1,
        vectors=_vectors(entry) if entry.has("vectors") else (),
        sources=entry.sources(),
    )


def _vectors(entry: Entry) -> tuple[tuple[int, int], ...]:
    """Widths of vectors and their bytes, from an object such as {"576": 656}."""
    found = entry.value("vectors")
    if not isinstance(found, dict) or not all(
        width.isdecimal() and type(size) is int and size > 0 for width, size in found.items()
    ):
        entry.wrong("vectors", found, "an object of widths and bytes")
    return tuple((int(width), size) for width, size in found.items())


def _link(entry: Entry) -> Link:
    return Link(
        id=entry.text("id"),
        name=entry.text("name"),
        aliases=entry.texts("aliases"),
        bandwidth=entry.integer("bandwidth"),
        sources=entry.sources(),
    )


def _runtime(entry: Entry) -> Runtime:
    return Runtime(
        id=entry.text("id"),
        name=entry.text("name"),
        aliases=(),
        context_bytes=entry.integer("context_bytes"),
        workspace_bytes=entry.integer("workspace_bytes"),
        sources=entry.sources(),
    )


def load_models(path: Path) -> tuple[Model, ...]:
    """The models of one JSON file; InputError names file and entry."""
    return _load(path, "models", _model)


@cache
def _model_entries() -> dict[str, tuple[Path, Entry]]:
    """Every entry of a model by its id: parsed, but not built."""
    found: dict[str, tuple[Path, Entry]] = {}
    for path in sorted((_HERE / "configs").glob("*.json")):
        for entry in read_entries(path, "models"):
            name = entry.text("id")
            if name in found:
                raise InputError(
                    f"{entry.where}: the id also stands in {found[name][0].name}; an id of its own is needed"
                )
            found[name] = (path, entry)
    return found


@cache
def _model_ids() -> dict[str, str]:
    """Each name of each model, in lower case, and the model's id."""
    owner: dict[str, str] = {}
    for name, (_, entry) in _model_entries().items():
        hub_id = entry.optional_text("hub_id")
        names = {name, *entry.texts("aliases"), *([hub_id] if hub_id else [])}
        _own(owner, name, {each.lower() for each in names}, entry.where)
    return owner


@cache
def _model_of(name: str) -> Model:
    path, entry = _model_entries()[name]
    return _built(entry, path, _model)


def stated_models() -> tuple[tuple[dict[str, Any], Model], ...]:
    """What the catalogue states of each model, and the model that it makes of it."""
    return tuple((model_facts(model.id), model) for model in models())


def load_stated_models(path: Path) -> tuple[tuple[dict[str, Any], Model], ...]:
    """The same of one JSON file; InputError names file and entry."""
    return tuple((entry.all(), _built(entry, path, _model)) for entry in read_entries(path, "models"))


@cache
def likely_peaks() -> dict[str, dict[str, Any]]:
    """Errors of `likely_peak_bytes` in ten thousandths of the peak, by family (tools/likely_peaks.py writes them)."""
    from vlmmem.strict_json import parse_json

    path = _HERE / "likely_peaks.json"
    found: dict[str, dict[str, Any]] = parse_json(path.read_bytes(), str(path))["families"]
    return found


def model_facts(name: str) -> dict[str, Any]:
    """What the catalogue states of a model, as it stands in its file: its config's fields and their sources.

    >>> model_facts("llama-2-13b")["config"]["num_hidden_layers"]
    40

    Raises:
        InputError: no model has that name.
    """
    entry = _model_entries()[find_model(name).id][1]
    return entry.all()


def load_gpus(path: Path) -> tuple[Gpu, ...]:
    """The GPUs of one JSON file; InputError names file and entry."""
    return _load(path, "gpus", _gpu)


def load_formats(path: Path) -> tuple[Format, ...]:
    """The number formats of one JSON file; InputError names file and entry."""
    return _load(path, "formats", _format)


def load_links(path: Path) -> tuple[Link, ...]:
    """The links of one JSON file; InputError names file and entry."""
    return _load(path, "links", _link)


def load_runtimes(path: Path) -> tuple[Runtime, ...]:
    """The runtime allowances of one JSON file; InputError names file and entry."""
    return _load(path, "runtime", _runtime)


@cache
def models() -> tuple[Model, ...]:
    """Every model of the catalogue, by file and in the file's order."""
    return tuple(_model_of(name) for name in _model_entries())


@cache
def gpus() -> tuple[Gpu, ...]:
    """Every GPU of the catalogue, in its order."""
    return load_gpus(_HERE / "gpus.json")


@cache
def formats() -> tuple[Format, ...]:
    """Every number format of the catalogue, in its order."""
    return load_formats(_HERE / "formats.json")


@cache
def links() -> tuple[Link, ...]:
    """Every link of the catalogue, the fastest first."""
    return load_links(_HERE / "links.json")


@cache
def runtimes() -> tuple[Runtime, ...]:
    """Every runtime allowance of the catalogue, in its order."""
    return load_runtimes(_HERE / "runtime.json")


@cache
def _by_name(every: Callable[[], Iterable[N]]) -> dict[str, N]:
    return {name: item for item in every() for name in _names(item)}


def _find(name: object, every: Callable[[], Iterable[N]], kind: str) -> N:
    if not isinstance(name, str):
        raise InputError(f"{kind} {name!r}: a name is needed")
    found: N | None = _by_name(every).get(name.strip().lower())
    if found is None:
        known = ", ".join(item.id for item in every())
        raise InputError(f"{kind} {name!r} is not in the catalogue; known are {known}")
    return found


def find_model(name: str) -> Model:
    """The model of that name, alias or hub id, in any case.

    >>> find_model("meta-llama/Llama-2-13b-hf") is find_model("llama-2-13b")
    True

    Raises:
        InputError: no model has that name; the line says which come near.
    """
    if not isinstance(name, str):
        raise InputError(f"model {name!r}: a name is needed")
    found = _model_ids().get(name.strip().lower())
    if found is None:
        from difflib import get_close_matches

        near = get_close_matches(name.strip().lower()[:_LONGEST_NAME], _model_ids(), n=3, cutoff=0.5)
        meant = f"; near are {', '.join(near)}" if near else ""
        raise InputError(f"model {name[:_LONGEST_NAME]!r} is not in the catalogue{meant}; 'vlmmem models' lists all")
    return _model_of(found)


def find_gpu(name: str) -> Gpu:
    """The GPU of that name or alias, in any case.

    >>> find_gpu("A100-80GB").name
    'NVIDIA A100 80GB SXM4'

    Raises:
        InputError: no GPU has that name; the line lists those that there are.
    """
    return _find(name, gpus, "GPU")


def find_format(name: str) -> Format:
    """The number format of that name or alias, in any case.

    >>> find_format("bfloat16").id
    'bf16'

    Raises:
        InputError: no format has that name; the line lists those that there are.
    """
    return _find(name, formats, "format")


def find_link(name: str) -> Link:
    """The link of that name or alias, in any case.

    >>> find_link("infiniband-ndr").bandwidth
    50000000000

    Raises:
        InputError: no link has that name; the line lists those that there are.
    """
    return _find(name, links, "link")


def find_runtime(name: str) -> Runtime:
    """The runtime allowance of that name: "one-gpu", "pipeline" or "tensor".

    Raises:
        InputError: no allowance has that name; the line lists those that there are.
    """
    return _find(name, runtimes, "runtime")
