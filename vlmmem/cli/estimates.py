"""The commands over the sum: estimate."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMANDS"]


def _estimate_arguments(sub: "argparse.ArgumentParser") -> None:
    sub.add_argument("model", metavar="MODEL")


def _estimate(options: "argparse.Namespace") -> int:
    raise NotImplementedError


COMMANDS = {"estimate": (_estimate_arguments, _estimate)}
