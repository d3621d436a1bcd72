"""ggml's graph allocator, walked through without a tensor: how long the buffer of a graph's results must be.

The rules are those of ggml/src/ggml-alloc.c (`ggml_gallocr_alloc_graph_impl`, `ggml_dyn_tallocr_alloc`) and of
ggml/src/ggml.c (`ggml_visit_parents`: a node stands behind its sources, from the left): a result is freed behind its
last reader, an operation that can works in its source's place, a free block that fits best is taken, and the buffer
is as long as the farthest end. Read in llama.cpp at 8733e0cf (August 2024), 7841fc72 (March 2025), 4227c9be (August
2025) and 0c1e5709 (2026).
"""

from collections.abc import Iterable, Sequence

__all__ = ["Graph", "Node", "buffer_bytes"]

CUDA_ALIGNMENT = 128
"""ggml-cuda.cu, `ggml_backend_cuda_buffer_type_get_alignment`."""

CPU_ALIGNMENT = 32
"""ggml-backend.cpp, `TENSOR_ALIGNMENT`."""


class Node:
    """One tensor of a graph: its bytes, what it reads, and how it is held.

    `inplace` marks an operation that may take its source's memory, `view` the tensor that it looks into. `outside`
    marks weights and caches, which lie in buffers of their own; `input` what is set before the graph runs; `output`
    what is read behind it.
    """

    __slots__ = ("bytes", "host", "inplace", "input", "output", "outside", "sources", "view")

    def __init__(
        self,
        size: int,
        sources: Sequence["Node"] = (),
        *,
        inplace: bool = False,
        view: "Node | None" = None,
        outside: bool = False,
        input: bool = False,  # noqa: A002 (ggml's own word)
        output: bool = False,
        host: bool = False,
    ) -> None:
        self.bytes = size
        self.sources = tuple(sources)
        self.inplace = inplace
        self.view: Node | None = (view.view or view) if view is not None else None
        self.outside: bool = outside or (self.view is not None and self.view.outside)
        self.input = input
        self.output = output
        self.host = host


class Graph:
    """Nodes in the order in which they run."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.leaves: list[Node] = []
        self._seen: set[int] = set()

    def expand(self, node: Node) -> Node:
        """Add a node behind all that it needs and that is not there yet."""
        stack: list[tuple[Node, int]] = [(node, 0)]
        while stack:
            here, at = stack.pop()
            if at == 0:
                if id(here) in self._seen:
                    continue
                self._seen.add(id(here))
            if at < len(here.sources):
                stack.append((here, at + 1))
                if id(here.sources[at]) not in self._seen:
                    stack.append((here.sources[at], 0))
                continue
            if here.sources or here.view is not None:
                self.nodes.append(here)
            else:
                self.leaves.append(here)
        return node


class _Memory:
    """A buffer's free blocks, as (offset, bytes) in order; the last one has no end."""

    _ENDLESS = 1 << 62

    def __init__(self, alignment: int) -> None:
        self._alignment = alignment
        self._free: list[tuple[int, int]] = [(0, self._ENDLESS)]
        self.length = 0

    def rounded(self, size: int) -> int:
        return -(-size // self._alignment) * self._alignment

    def take(self, size: int) -> int:
        size = self.rounded(size)
        best, room = len(self._free) - 1, self._ENDLESS + 1
        for index in range(len(self._free) - 1):
            if size <= self._free[index][1] <= room:
                best, room = index, self._free[index][1]
        offset, held = self._free[best]
        if held == size:
            del self._free[best]
        else:
            self._free[best] = (offset + size, held - size)
        self.length = max(self.length, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        size = self.rounded(size)
        for index, (start, held) in enumerate(self._free):
            if start + held == offset:
                self._free[index] = (start, held + size)
                if index + 1 < len(self._free) and self._free[index + 1][0] == offset + size:
                    self._free[index] = (start, held + size + self._free[index + 1][1])
                    del self._free[index + 1]
                return
            if offset + size == start:
                self._free[index] = (offset, held + size)
                return
        at = next((i for i, (start, _) in enumerate(self._free) if start > offset), len(self._free))
        self._free.insert(at, (offset, size))


class _Held:
    __slots__ = ("allocated", "children", "host", "known", "offset", "size", "views")

    def __init__(self) -> None:
        self.allocated = self.known = self.host = False
        self.children = self.views = self.offset = self.size = 0


def buffer_bytes(nodes: Iterable[Node], leaves: Iterable[Node], alignment: int = CUDA_ALIGNMENT) -> tuple[int, int]:
    """Length of the buffers of a graph: on the device, and in the host's memory (nodes marked `host`).

    Args:
        nodes: the graph's nodes in their order.
        leaves: its inputs, weights and caches.
        alignment: of the device's buffer, in bytes; the host's is the same for pinned memory as for its own, 32.

    >>> a = Node(1000, input=True)
    >>> b = Node(1000, (a,)); c = Node(1000, (b,), inplace=True); d = Node(1000, (b, c))
    >>> graph = Graph(); _ = graph.expand(c)
    >>> buffer_bytes(graph.nodes, graph.leaves)
    (2048, 0)
    """
    order, first = list(nodes), list(leaves)
    memories = {False: _Memory(alignment), True: _Memory(CPU_ALIGNMENT)}
    held: dict[int, _Held] = {}

    def of(node: Node) -> _Held:
        found = held.get(id(node))
        if found is None:
            found = held[id(node)] = _Held()
        return found

    def allocate(node: Node) -> None:
        mine = of(node)
        if node.outside or mine.known or node.view is not None:
            return
        mine.allocated = mine.known = True
        mine.host = node.host
        if node.inplace:
            for parent in node.sources:
                theirs = of(parent)
                # a view is no owner (ggml_gallocr_is_own), so its memory is never taken over
                if parent.output or not theirs.allocated or parent.bytes != node.bytes:
                    continue
                if theirs.children == 1 and theirs.views == 0:
                    mine.host, mine.offset, mine.size = theirs.host, theirs.offset, theirs.size
                    theirs.allocated = False
                    return
        mine.size = node.bytes
        mine.offset = memories[node.host].take(node.bytes)

    def release(node: Node) -> None:
        mine = of(node)
        if not node.output and not node.outside:
            memories[mine.host].give(mine.offset, mine.size)
            mine.allocated = False

    for leaf in first:
        allocate(leaf)
    for node in order:
        if node.view is not None:
            of(node.view).views += 1
        if node.input:
            allocate(node)
        for source in node.sources:
            of(source).children += 1
            if source.input:
                allocate(source)
    for node in order:
        for source in node.sources:
            allocate(source)
        allocate(node)
        for source in node.sources:
            theirs = of(source)
            theirs.children -= 1
            if theirs.children == 0 and theirs.views == 0:
                if source.view is not None:
                    deep = of(source.view)
                    deep.views -= 1
                    if deep.views == 0 and deep.children == 0 and deep.allocated:
                        release(source.view)
                elif theirs.allocated:
                    release(source)
    return memories[False].length, memories[True].length
