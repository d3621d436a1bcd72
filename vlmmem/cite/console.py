"""Console examples in prose: a command of ours and what it prints, run and compared.

In a fenced block of kind ``console`` each line that begins ``$ vlmmem`` is run, and the lines below it, up to the next
command, must be its output. Other commands (``$ make book``) have no output shown and are left alone.
"""

import re
import shlex
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO

_BLOCK = re.compile(r"^```console\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = "$ "


def output_of(command: str) -> str:
    """What ``vlmmem ...`` prints, both streams, without the last line break."""
    from vlmmem.cli import main

    printed = StringIO()
    # --help and --version end the program
    with redirect_stdout(printed), redirect_stderr(printed), suppress(SystemExit):
        main(shlex.split(command)[1:])
    return printed.getvalue().rstrip("\n")


def _examples(body: str) -> list[tuple[str, str]]:
    """Pairs of a command and the output shown below it."""
    pairs: list[tuple[str, list[str]]] = []
    for line in body.splitlines():
        if line.startswith(_PROMPT) or not pairs:
            pairs.append((line, []))
        else:
            pairs[-1][1].append(line)
    return [(command, "\n".join(lines).rstrip("\n")) for command, lines in pairs]


def _run(body: str) -> str:
    shown = []
    for command, output in _examples(body):
        shown.append(command)
        ours = command.startswith(f"{_PROMPT}vlmmem ")
        fresh = output_of(command.removeprefix(_PROMPT)) if ours else output
        if fresh:
            shown.append(fresh)
    return "\n".join(shown) + "\n"


def fix_console(text: str) -> str:
    r"""The text with the output of every example as the command prints it now.

    >>> fix_console("```console\n$ vlmmem --version\nold\n```").splitlines()[2].startswith("vlmmem ")
    True
    """
    return _BLOCK.sub(lambda match: f"```console\n{_run(match['body'])}```", text)


def check_console(text: str, where: str) -> list[str]:
    """One line for every example whose output is not what the command prints."""
    problems = []
    for match in _BLOCK.finditer(text):
        for command, output in _examples(match["body"]):
            if not command.startswith(f"{_PROMPT}vlmmem "):
                if output:
                    problems.append(f"{where}: {command!r} shows output that nothing checks; leave the output out")
            elif output != output_of(command.removeprefix(_PROMPT)):
                line = text.count("\n", 0, match.start() + match[0].index(command)) + 1
                problems.append(f"{where}:{line}: {command!r} prints something else; 'make fix' rewrites it")
    return problems
