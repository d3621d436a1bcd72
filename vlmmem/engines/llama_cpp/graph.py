"""The graph that llama.cpp reserves for: the largest step of a prompt, from the embedding to the logits.

`llama_context` builds the graph of n_ubatch tokens against a full cache and lets the allocator say how long the
buffers are ("compute buffer size"). Here the same nodes stand in the same order, with their bytes: the steps of
src/llama-graph.cpp (`build_norm`, `build_qkv`, `build_attn`, `build_attn_mha`, `build_ffn`, `build_moe_ffn`) and the
copies between devices of ggml/src/ggml-backend.cpp (`ggml_backend_sched_split_graph`). Read at the commits that
`ggml` names; what changed between them is `Era`.
"""

from collections.abc import Sequence

from vlmmem.engines.llama_cpp.ggml import CPU_ALIGNMENT, CUDA_ALIGNMENT, Graph, Node, buffer_bytes
from vlmmem.record import record

__all__ = ["Block", "Era", "Step", "compute_buffers"]

_F16, _F32, _I32, _I64 = 2, 4, 4, 8
_ROPE = 64
"""Width of the part of a latent key that turns with its position: of all models that have one."""


@record(frozen=True, slots=True)
class Era:
    """What of the graph differs between builds.

    `mask_pad` rounds the rows of the attention mask; `mask_f16` says that flash attention's mask is set in 16 bits,
    not cast; `rows` that the cache is written by indices (`ggml_set_rows`); `glu` that gate and up are joined in one
    operation; `select` that an input for embeddings stands beside that for tokens, `keeps_embedding` that the tokens'
    embeddings are an output, whose memory is never used again. `latent_values` says that latent attention has a cache
    of values too, `values_first` that values are computed before keys.
    """

    mask_pad: int
    mask_f16: bool
    rows: bool
    glu: bool
    select: bool
    keeps_embedding: bool = False
    latent_values: bool = False
    values_first: bool = False


@record(frozen=True, slots=True)
class Block:
    """One layer as the graph sees it, in elements.

    `cells` of cache does its attention look at (0: it has none). `query`, `key`, `value` are widths over all heads;
    `heads` the query heads, `value_head` what attention gives back a head. `latent` marks absorbed latent attention:
    (query width before, width of a head's latent,
    rank of the queries or 0). `inner` is the MLP's width (`joined_gate`: gate and up are one
    matrix), `experts` of which `active` see a
    token, each `expert_inner` wide; `shared` the width of experts that all tokens see. `recurrent` is a state-space
    layer's (convolution channels, inner width, state elements). `host_matrix` are the bytes of one
    matrix of experts that lie in the host's memory: a prompt's step copies them to the device.
    """

    cells: int
    sliding: bool
    heads: int
    query: int
    key: int
    value: int
    value_head: int
    fused: bool = False
    query_norm: bool = False
    latent: tuple[int, int, int] | None = None
    inner: int = 0
    gated: bool = True
    joined_gate: bool = False
    experts: int = 0
    active: int = 0
    expert_inner: int = 0
    shared: int = 0
    merged_experts: bool = False
    recurrent: tuple[int, int, int] | None = None
    host_matrix: int = 0


@record(frozen=True, slots=True)
class Step:
    """The step that is reserved for: tokens, rows of logits, widths, and how attention runs.

    `head_on_host` are the bytes of an output matrix that lies in the host's memory and is copied for the step.
    """

    tokens: int
    outputs: int
    hidden: int
    vocab: int
    flash: bool
    head_on_host: int = 0
    sequences: int = 1


class _Builder:
    def __init__(self, step: Step, era: Era, *, first: bool, handed: bool) -> None:
        self.step, self.era, self.first, self.handed = step, era, first, handed
        self.graph = Graph()
        self.masks: dict[tuple[bool, int], Node] = {}
        self.indices: dict[tuple[bool, int], tuple[Node, Node]] = {}
        self.positions = Node(_I32 * step.tokens, input=True, host=True)

    def mask(self, sliding: bool, cells: int) -> Node:
        key = (sliding, cells)
        if key not in self.masks:
            rows = -(-self.step.tokens // self.era.mask_pad) * self.era.mask_pad
            # a later device is handed the mask that the first one has cast
            if self.step.flash and (self.era.mask_f16 or self.handed):
                found = Node(cells * rows * _F16, input=True, host=True)
            else:
                found = Node(cells * rows * _F32, input=True, host=True)
                if self.step.flash:
                    found = Node(cells * rows * _F16, (found,))
            self.masks[key] = found
        return self.masks[key]

    def rows(self, sliding: bool, cells: int, value: int) -> tuple[Node, Node]:
        key = (sliding, cells)
        if key not in self.indices:
            each = 1 if self.step.flash else value
            self.indices[key] = (
                Node(_I64 * self.step.tokens, input=True, host=True),
                Node(_I64 * self.step.tokens * each, input=True, host=True),
            )
        return self.indices[key]

    def norm(self, x: Node) -> Node:
        scaled = Node(x.bytes, (x,), inplace=True)
        return Node(x.bytes, (scaled,), inplace=True)

    def matmul(self, x: Node, rows: int, width: int, *more: Node) -> Node:
        return Node(rows * width * _F32, (x, *more))

    def attention(self, block: Block, x: Node) -> Node:
        tokens, step = self.step.tokens, self.step
        if block.latent is not None:
            q, k, v = self._latent(block, x)
        elif block.fused:
            joined = self.matmul(x, tokens, block.query + block.key + block.value)
            q = Node(tokens * block.query * _F32, (Node(tokens * block.query * _F32, (joined,), view=joined),))
            k = Node(tokens * block.key * _F32, (Node(tokens * block.key * _F32, (joined,), view=joined),))
            v = Node(tokens * block.value * _F32, (joined,), view=joined)
            q = Node(q.bytes, (q.sources[0], self.positions))
            k = Node(k.bytes, (k.sources[0], self.positions))
        else:
            q = self._turned(self.matmul(x, tokens, block.query), block.query_norm)
            k = self._turned(self.matmul(x, tokens, block.key), block.query_norm)
            made = self.matmul(x, tokens, block.value)
            v = Node(made.bytes, (made,), view=made)
        first = (q, v, k) if self.era.values_first else (q, k, v)
        for node in first:
            self.graph.expand(node)
        cache_k, cache_v = Node(0, outside=True), Node(0, outside=True)
        if self.era.rows:
            value = block.value if block.latent is None else block.value_head
            at_k, at_v = self.rows(block.sliding, block.cells, value)
            flat = Node(k.bytes, (k,), view=k)
            self.graph.expand(Node(0, (flat, at_k, cache_k), view=cache_k))
            if block.latent is None or self.era.latent_values:
                flat = Node(v.bytes, (v,), view=v)
                self.graph.expand(Node(0, (flat, at_v, cache_v), view=cache_v))
        else:
            self.graph.expand(Node(0, (k, cache_k), view=cache_k))
            self.graph.expand(Node(0, (v, cache_v), view=cache_v))
        held_k, held_v = Node(0, (cache_k,), view=cache_k), Node(0, (cache_v,), view=cache_v)
        turned = Node(q.bytes, (Node(q.bytes, (q,), view=q),), view=q)
        mask = self.mask(block.sliding, block.cells)
        width = block.heads * block.value_head
        if step.flash:
            out = Node(tokens * width * _F32, (turned, held_k, held_v, mask))
        else:
            scores = Node(block.cells * tokens * block.heads * _F32, (held_k, turned))
            weights = Node(scores.bytes, (scores, mask), inplace=True)
            got = Node(tokens * width * _F32, (held_v, weights))
            seen = Node(got.bytes, (got,), view=got)
            out = Node(got.bytes, (seen,))
        if block.latent is not None:
            out = Node(tokens * block.value * _F32, (Node(out.bytes, (out,), view=out),))
            if step.flash:
                out = Node(out.bytes, (Node(out.bytes, (out,), view=out),))
        flat = Node(out.bytes, (out,), view=out)
        self.graph.expand(flat)
        return self.matmul(flat, tokens, step.hidden)

    def _turned(self, made: Node, normed: bool) -> Node:
        node = Node(made.bytes, (made,), view=made)
        if normed:
            node = self.norm(node)
        return Node(made.bytes, (node, self.positions), inplace=True)

    def _latent(self, block: Block, x: Node) -> tuple[Node, Node, Node]:
        """Latent attention, absorbed: queries in the latent's width, one key for all heads."""
        tokens = self.step.tokens
        assert block.latent is not None
        query, width, rank = block.latent
        source = self.norm(self.matmul(x, tokens, rank)) if rank else x
        made = self.matmul(source, tokens, query)
        shaped = Node(made.bytes, (made,), view=made)
        nope = Node(made.bytes, (shaped,), view=made)
        rope = Node(tokens * block.heads * _ROPE * _F32, (Node(made.bytes, (shaped,), view=made), self.positions))
        down = self.matmul(x, tokens, width)
        turned = Node(tokens * _ROPE * _F32, (Node(down.bytes, (down,), view=down), self.positions))
        latent = Node(tokens * (width - _ROPE) * _F32, (Node(down.bytes, (down,), view=down),))
        latent = Node(latent.bytes, (latent,), inplace=True)
        absorbed = Node(tokens * block.heads * (width - _ROPE) * _F32, (Node(made.bytes, (nope,), view=made),))
        flat = Node(absorbed.bytes, (absorbed,), view=absorbed)
        held = Node(latent.bytes, (latent,), view=latent)
        q = Node(tokens * block.heads * width * _F32, (flat, rope))
        return q, Node(tokens * width * _F32, (held, turned)), held

    def mlp(self, block: Block, x: Node, rows: int) -> Node:
        hidden = self.step.hidden
        out: Node | None = None
        if block.experts:
            out = self._experts(block, x, rows)
        inner = block.inner if out is None else block.shared
        if not inner:
            return out if out is not None else x
        dense = self.matmul(self._joined(block, x, rows, inner), rows, hidden)
        return dense if out is None else Node(out.bytes, (out, dense), inplace=True)

    def _joined(self, block: Block, x: Node, rows: int, inner: int) -> Node:
        if block.joined_gate:
            both = self.matmul(x, rows, 2 * inner)
            half = both.bytes // 2
            if self.era.glu:
                return Node(half, (both,))
            gate, up = (Node(half, (Node(half, (both,), view=both),)) for _ in range(2))
            return self._gate(gate, up)
        up = self.matmul(x, rows, inner)
        if not block.gated:
            return Node(up.bytes, (up,), inplace=True)
        gate = self.matmul(x, rows, inner)
        return self._gate(gate, up)

    def _gate(self, gate: Node, up: Node) -> Node:
        if self.era.glu:
            return Node(gate.bytes, (gate, up))
        opened = Node(gate.bytes, (gate,), inplace=True)
        return Node(gate.bytes, (opened, up), inplace=True)

    def _experts(self, block: Block, x: Node, rows: int) -> Node:
        hidden, active = self.step.hidden, block.active
        logits = self.matmul(x, rows, block.experts)
        chances = Node(logits.bytes, (logits,), inplace=True)
        sorted_ = Node(rows * block.experts * _I32, (chances,))
        chosen = Node(rows * active * _I32, (sorted_,), view=sorted_)
        shaped = Node(chances.bytes, (chances,), view=chances)
        weights = Node(rows * active * _F32, (shaped, chosen))
        flat = Node(weights.bytes, (weights,), view=weights)
        total = Node(rows * _F32, (flat,))
        share = Node(weights.bytes, (flat, total), inplace=True)
        weights = Node(share.bytes, (share,), view=share)
        if self.era.rows:
            self.graph.expand(weights)
        x3 = Node(x.bytes, (x,), view=x)

        def fetched(*sources: Node) -> tuple[Node, ...]:
            return (*sources, Node(block.host_matrix, (sources[0],))) if block.host_matrix else sources

        if block.merged_experts:
            both = Node(2 * rows * active * block.expert_inner * _F32, fetched(x3, chosen))
            gate = Node(both.bytes // 2, (both,), view=both)
            up = Node(both.bytes // 2, (both,), view=both)
            joined = Node(both.bytes // 2, (gate, up))
        else:
            up = Node(rows * active * block.expert_inner * _F32, fetched(x3, chosen))
            gate = Node(up.bytes, fetched(x3, chosen))
            joined = self._gate(gate, up)
        given = Node(rows * active * hidden * _F32, fetched(joined, chosen))
        given = Node(given.bytes, (given, weights), inplace=True)
        if self.era.rows:
            self.graph.expand(given)
        views = [Node(rows * hidden * _F32, (given,), view=given) for _ in range(active)]
        if self.era.rows:
            for view in views:
                self.graph.expand(view)
        out = views[0]
        for view in views[1:]:
            out = Node(rows * hidden * _F32, (out, view), inplace=out is not views[0])
        return out if active > 1 else Node(rows * hidden * _F32, (views[0],))

    def recurrence(self, block: Block, x: Node) -> Node:
        """A state-space layer: its input, the convolution over it, the scan, and back to the hidden size."""
        tokens = self.step.tokens
        assert block.recurrent is not None
        channels, inner, state = block.recurrent
        made = self.matmul(x, tokens, channels + inner)
        parts = Node(tokens * channels * _F32, (made,), view=made)
        window = Node((tokens + 3) * channels * _F32, (parts,))
        mixed = Node(tokens * channels * _F32, (window,))
        bent = Node(mixed.bytes, (mixed,), inplace=True)
        scan = Node((tokens * inner + state * self.step.sequences) * _F32, (bent,))
        seen = Node(tokens * inner * _F32, (scan,), view=scan)
        gate = Node(tokens * inner * _F32, (made,), view=made)
        out = Node(tokens * inner * _F32, (gate, seen))
        return self.matmul(out, tokens, self.step.hidden)

    def build(self, blocks: Sequence[Block], *, last: bool) -> None:
        """The graph of some layers: with the embedding where they are the first, the logits where the last."""
        step = self.step
        size = step.tokens * step.hidden * _F32
        if self.first:
            table = Node(0, outside=True, host=True)
            here = Node(size, (table, Node(_I32 * step.tokens, input=True, host=True)), host=True)
            here.output = self.era.keeps_embedding
            if self.era.select:
                self.graph.expand(here)
                self.graph.expand(Node(size, input=True, host=True))
        else:
            here = Node(size, input=True, host=True)
        out_ids = Node(_I32 * step.outputs, input=True, host=True)
        rows = step.tokens
        for index, block in enumerate(blocks):
            before = here
            normed = self.norm(here)
            if block.recurrent is not None and not block.cells:
                cur = self.recurrence(block, normed)
            elif block.cells:
                cur = self.attention(block, normed)
                if block.recurrent is not None:
                    cur = Node(cur.bytes, (cur, self.recurrence(block, normed)), inplace=True)
            else:
                cur = normed
            if last and index == len(blocks) - 1:
                rows = step.outputs
                small = rows * step.hidden * _F32
                cur = Node(small, (cur, out_ids))
                before = Node(small, (before, out_ids))
            if not (block.inner or block.experts):
                here = Node(cur.bytes, (cur, before), inplace=True)
                continue
            joined = Node(cur.bytes, (cur, before), inplace=True)
            fed = self.mlp(block, self.norm(joined), rows)
            here = Node(joined.bytes, (fed, joined), inplace=True)
        if last:
            normed = self.norm(here)
            head = (Node(step.head_on_host, (normed,)),) if step.head_on_host else ()
            here = Node(step.outputs * step.vocab * _F32, (normed, *head), output=True)
        else:
            here.output = True
        self.graph.expand(here)


def _split(graph: Graph, copies: int) -> tuple[list[Node], list[Node]]:
    """The graph with the copies that a device needs of what lies in the host's memory."""
    hosted = [node for node in graph.nodes if node.host]
    rest = [node for node in graph.nodes if not node.host]
    made: dict[int, Node] = {}
    spare: list[Node] = []
    for node in rest:
        sources = list(node.sources)
        for at, source in enumerate(sources):
            if source.host and not source.outside:
                if id(source) not in made:
                    kept = copies > 1
                    made[id(source)] = Node(source.bytes, input=kept, output=kept)
                    spare += [Node(source.bytes, input=True, output=True) for _ in range(copies - 1)]
                    if kept and source.input:
                        # the host keeps as many of what is set before the graph runs
                        source.output = True
                        more = range(copies - 1)
                        spare += [Node(source.bytes, input=True, output=True, host=True) for _ in more]
                sources[at] = made[id(source)]
        node.sources = tuple(sources)
    between = list(made.values())
    if copies > 1:
        return [*hosted, *rest], [*graph.leaves, *between, *spare]
    return [*hosted, *between, *rest], list(graph.leaves)


def compute_buffers(
    blocks: Sequence[Block],
    step: Step,
    era: Era,
    *,
    first: bool = True,
    last: bool = True,
    handed: bool = False,
    copies: int = 1,
    device: bool = True,
) -> tuple[int, int]:
    """Bytes of the compute buffer of a device and of the host's, for the layers that the device holds.

    Args:
        blocks: the device's layers, in order.
        step: the step that is reserved for.
        era: the build's rules.
        first: whether the embedding stands before them.
        last: whether the logits stand behind them.
        handed: whether another device stands before this one, and hands on what it has made of the inputs.
        copies: of each input where several devices work at once (pipeline parallelism: 4).
        device: False where all runs on the CPU: one buffer for all.
    """
    builder = _Builder(step, era, first=first, handed=handed)
    builder.build(blocks, last=last)
    graph = builder.graph
    if not device:
        for node in (*graph.nodes, *graph.leaves):
            node.host = False
        return 0, buffer_bytes(graph.nodes, graph.leaves, CPU_ALIGNMENT)[0]
    nodes, leaves = _split(graph, copies)
    return buffer_bytes(nodes, leaves, CUDA_ALIGNMENT)
