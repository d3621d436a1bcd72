"""The command over the errors: accuracy."""

from typing import TYPE_CHECKING

from vlmmem.cli.answers import columns, say

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from vlmmem.accuracy import Line, Prediction, Verdict

__all__ = ["COMMANDS"]


def _percent(share: "float | None", *, signed: bool = False) -> str:
    if share is None:
        return "no record"
    return f"{100 * share:+.2f} %" if signed else f"{100 * share:.2f} %"


def _accuracy(options: "argparse.Namespace") -> int:
    from vlmmem.accuracy import LEFT_OUT, coverage, predictions, table, verdicts

    found, left = predictions()
    split = options.split.replace("-", " ") if options.split else None
    lines = table(engine=options.engine, quantity=options.quantity, split=split, stated=options.stated)
    judged = verdicts()
    held, of = coverage(found)
    if options.json:
        say(
            {
                "records": len({item.run for item in found}),
                "figures": len(found),
                "lines": [line.json() for line in lines],
                "targets": [item.json() for item in judged],
                "coverage": {"held": held, "records": of},
                "unpriced": [{name: getattr(item, name) for name in item.__slots__} for item in left],
            }
        )
        return 0
    if split is None:
        # The whole table is hundreds of lines; what the rules were not fitted on is what counts.
        lines = tuple(line for line in lines if line.split in (LEFT_OUT, "fitted"))
    say(_table(lines))
    say(_targets(judged))
    say(
        f"\n{held} of {of} figures of left-out runs lie in their stated range."
        if of
        else "\nno left-out run states everything."
    )
    say(_unpriced(left, found))
    return 0


def _table(lines: "tuple[Line, ...]") -> str:
    from vlmmem.accuracy import reasons

    head = (
        "engine",
        "release",
        "quantity",
        "split",
        "records",
        "stated",
        "mean",
        "median",
        "bias",
        "rounding",
        "worst",
        "run",
    )
    known = reasons()
    body = [
        (
            line.engine,
            line.release,
            line.quantity,
            line.split,
            str(line.records),
            str(line.stated),
            _percent(line.mean),
            _percent(line.median),
            _percent(line.bias, signed=True),
            f"{100 * line.within_rounding:.0f} %",
            _percent(line.worst_error, signed=True),
            line.worst + (f": {why}" if (why := known.get((line.worst, line.quantity))) else ""),
        )
        for line in lines
    ]
    return columns([head, *body])


def _targets(judged: "tuple[Verdict, ...]") -> str:
    said = {True: "met", False: "missed", None: "no record"}
    head = ("\ntarget, on left-out records", "records", "value", "", "settings stated", "value", "")
    body = [
        (
            item.target.says,
            str(item.records),
            _percent(item.value),
            said[item.met],
            str(item.stated_records),
            _percent(item.stated_value),
            said[item.stated_met],
        )
        for item in judged
    ]
    return columns([head, *body])


def _unpriced(left: "Any", found: "tuple[Prediction, ...]") -> str:
    whole = [item for item in left if not item.quantity]
    parts = [item for item in left if item.quantity]
    lines = [f"\n{len(found)} figures of {len({item.run for item in found})} runs have a prediction."]
    if whole:
        lines += [f"{len(whole)} runs have none:", columns((f"  {item.run}", item.reason) for item in whole)]
    if parts:
        lines += [f"{len(parts)} further figures have none:"]
        lines.append(columns((f"  {item.run}", item.quantity, item.reason) for item in parts))
    return "\n".join(lines)


def _arguments(sub: "argparse.ArgumentParser") -> None:
    sub.add_argument("--engine", help="only this engine's figures")
    sub.add_argument("--quantity", help="only this figure: weights, activation_peak, kv_pool ...")
    sub.add_argument("--split", help="only this split: fitted, left-out, left-out-by-model, left-out-by-source")
    sub.add_argument(
        "--stated", action="store_true", help="only runs that state all settings that a figure follows from"
    )


COMMANDS = {"accuracy": (_arguments, _accuracy)}
