"""Which code cells of a notebook depend on its parameters, read from their code.

A cell depends on the parameters where one of its statements reads a parameter, or a name that such a
statement gave a value. The rule errs towards "depends" (a list that was once appended to stays dependent), so
the gate also changes every parameter and looks at the outputs.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nbformat import NotebookNode

QUOTES = {"figure", "figures"}
"""Names of the package's face that a cell tagged ``quotation`` may call, beside those of vlmmem.notebook."""


@dataclass
class Names:
    """What a piece of code does with names of the notebook.

    Attributes:
        reads: names whose value it uses.
        stores: names that it binds, or deletes.
        touches: names whose value it may change in place.
    """

    reads: set[str] = field(default_factory=set)
    stores: set[str] = field(default_factory=set)
    touches: set[str] = field(default_factory=set)


class _Reader(ast.NodeVisitor):
    def __init__(self) -> None:
        self.names = Names()
        self.local: list[set[str]] = []

    def _is_local(self, name: str) -> bool:
        return any(name in scope for scope in self.local)

    def _store(self, name: str) -> None:
        if self.local:
            self.local[-1].add(name)
        else:
            self.names.stores.add(name)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            if not self._is_local(node.id):
                self.names.reads.add(node.id)
        else:
            self._store(node.id)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and not self._is_local(node.target.id):
            self.names.reads.add(node.target.id)
        self.generic_visit(node)

    def _touch(self, node: ast.expr) -> None:
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        if isinstance(node, ast.Name) and not self._is_local(node.id):
            self.names.touches.add(node.id)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            self._touch(node.func.value)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._touch(node)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._touch(node)
        self.generic_visit(node)

    def visit_alias(self, node: ast.alias) -> None:
        self._store((node.asname or node.name).partition(".")[0])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._store(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name:
            self._store(node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name:
            self._store(node.name)

    def _in_scope(self, names: set[str], parts: Sequence[ast.AST]) -> None:
        self.local.append(names)
        for part in parts:
            self.visit(part)
        self.local.pop()

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._store(node.name)
        for outside in [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(outside)
        self._in_scope(_arguments(node.args), node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for outside in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(outside)
        self._in_scope(_arguments(node.args), [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._store(node.name)
        for outside in [*node.decorator_list, *node.bases, *(word.value for word in node.keywords)]:
            self.visit(outside)
        self._in_scope(set(), node.body)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self.visit(node.generators[0].iter)
        self.local.append(set())
        for number, generator in enumerate(node.generators):
            if number:
                self.visit(generator.iter)
            self.visit(generator.target)
            for condition in generator.ifs:
                self.visit(condition)
        for part in [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]:
            self.visit(part)
        self.local.pop()

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node)


def _arguments(arguments: ast.arguments) -> set[str]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
    return {argument.arg for argument in every}


def parse(source: str) -> ast.Module:
    """A cell's code, IPython's magics left out."""
    return ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.MULTILINE))


def names_of(node: ast.AST) -> Names:
    """What a statement, or a whole cell, does with names; those of its functions and comprehensions apart.

    >>> names = names_of(parse("total = weights + sum(kv * n for n in sizes)"))
    >>> sorted(names.reads), sorted(names.stores)
    (['kv', 'sizes', 'sum', 'weights'], ['total'])
    """
    reader = _Reader()
    reader.visit(node)
    return reader.names


def _literal(name: str, value: ast.expr) -> object:
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise ValueError(f"parameter {name!r}: {ast.unparse(value)!r} cannot be replaced; a literal can") from None


def parameters_of(notebook: NotebookNode) -> dict[str, object]:
    """Names and values that the cell tagged ``parameters`` assigns.

    Raises ValueError where it does anything else: papermill could not replace it.
    """
    values: dict[str, object] = {}
    for cell in notebook.cells:
        if "parameters" not in cell.metadata.get("tags", ()):
            continue
        for statement in parse(cell.source).body:
            match statement:
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=value)
                    | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                ):
                    values[name] = _literal(name, value)
                case _:
                    raise ValueError(f"{ast.unparse(statement)!r} in the parameters is no NAME = LITERAL")
    return values


def _quotation_problem(source: str, free: set[str]) -> str | None:
    """Why a cell tagged ``quotation`` does more than show the ledger's figures."""
    tree = parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value is not True:
            return f"holds the number {node.value!r}"
        if isinstance(node, ast.BinOp):
            return f"computes {ast.unparse(node)!r}"
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in free):
            return f"calls {ast.unparse(node.func)}"
    return None


def _imported_displays(notebook: NotebookNode) -> set[str]:
    """Names that the notebook imports from vlmmem.notebook, or from the face where they quote."""
    names = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for node in ast.walk(parse(cell.source)):
                if isinstance(node, ast.ImportFrom) and node.module in {"vlmmem", "vlmmem.notebook"}:
                    names |= {
                        alias.asname or alias.name
                        for alias in node.names
                        if node.module == "vlmmem.notebook" or alias.name in QUOTES
                    }
    return names


def problems(notebook: NotebookNode) -> Iterator[str]:
    """Why the parameters are not what every code cell below them depends on, one line a reason."""
    try:
        parameters = set(parameters_of(notebook))
    except ValueError as error:
        yield str(error)
        return
    if not parameters:
        yield "no parameter is assigned in a cell tagged 'parameters'"
        return
    derived = set(parameters)
    read: set[str] = set()
    below = False
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", ())
        if "parameters" in tags:
            below = True
            continue
        whole = names_of(parse(cell.source))
        if not below:
            continue
        for name in sorted(parameters & whole.stores):
            yield f"cell {number}: gives the parameter {name!r} another value"
        read |= parameters & whole.reads
        depends = False
        for statement in parse(cell.source).body:
            names = names_of(statement)
            if names.reads & derived:
                depends = True
                derived |= names.stores | names.touches
            else:
                derived -= names.stores - names.touches - parameters
        if "quotation" in tags:
            reason = _quotation_problem(cell.source, _imported_displays(notebook))
            if reason:
                yield f"cell {number}: tagged 'quotation', but {reason}"
        elif not depends:
            yield f"cell {number}: depends on no parameter"
    for name in sorted(parameters - read):
        yield f"parameter {name!r}: no cell below reads it"
