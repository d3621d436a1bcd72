"""Reservation: what an engine takes of one GPU, and what it then has room for."""

from typing import Any

from vlmmem.record import record
from vlmmem.terms import Term

__all__ = ["Reservation"]


@record(frozen=True, slots=True)
class Reservation:
    """What an engine of one release takes of the fullest GPU, as its own log will print it.

    Attributes:
        engine, version: the engine, and the release whose rules were used.
        terms: the memory of one GPU: weights, activations, runtime (runtime:non_torch, runtime:graphs), kv_cache.
        kv_tokens: tokens that the KV cache has room for, as the engine prints it; None where it prints none.
        kv_blocks: blocks of the pool; None where the engine has none.
        max_concurrency: sequences of the whole context that fit at once, as the engine prints it.
        printed: further lines of the log by the engine's own word for them, in bytes or counts.
        settings: what each setting that was left open came to: (name, value) pairs.
        command: the words of the command line that starts it so.
        notes: what the numbers leave out or take for granted.
    """

    engine: str
    version: str
    terms: tuple[Term, ...]
    kv_tokens: int | None = None
    kv_blocks: int | None = None
    max_concurrency: float | None = None
    printed: tuple[tuple[str, int | float], ...] = ()
    settings: tuple[tuple[str, int | float | str | bool], ...] = ()
    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def bytes_of(self, kind: str) -> int:
        """Bytes of one kind of term, its parts together: weights, activations, runtime, kv_cache."""
        return sum(term.bytes for term in self.terms if term.kind == kind)

    def json(self) -> dict[str, Any]:
        """The same as a JSON object: sizes in bytes, all of one GPU."""
        import shlex

        return {
            "name": self.engine,
            "version": self.version,
            "weights_bytes": self.bytes_of("weights"),
            "activation_bytes": self.bytes_of("activations"),
            "runtime_bytes": self.bytes_of("runtime"),
            "kv_pool_bytes": self.bytes_of("kv_cache"),
            "kv_tokens": self.kv_tokens,
            "kv_blocks": self.kv_blocks,
            "max_concurrency": self.max_concurrency,
            "printed": dict(self.printed),
            "settings": dict(self.settings),
            "command": shlex.join(self.command),
            "notes": list(self.notes),
        }
