"""The documents' rules, each a function of its arguments and of a reading of the units.

A formula returns what the document's rule prints, as an exact rational in the printed unit. What is right instead comes
from the package's own terms (`right`). Arguments are data (`figures/`): numbers, catalogue ids, expressions over the
package's face, or ids of other figures, whose printed value is then taken, so that no printed number stands twice.
"""

from collections.abc import Mapping

from vlmmem.ledger.formulas import arithmetic, code, facts, memory
from vlmmem.ledger.formulas.formula import Arguments, Formula, Outcome, Right
from vlmmem.ledger.formulas.memory import BINARY_K

__all__ = ["BINARY_K", "FORMULAS", "Arguments", "Formula", "Outcome", "Right"]

FORMULAS: Mapping[str, Formula] = {
    formula.id: formula for room in (memory, arithmetic, code, facts) for formula in room.FORMULAS
}
"""Every formula by id."""
