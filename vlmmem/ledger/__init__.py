"""The ledger: what the documents print, figure by figure, and whether it stands.

A figure is data (`figures/<document>/*.json`); its formula, its convention and its verdict are earned by code. `load`
validates everything and names file and entry in every complaint.
"""

from vlmmem.ledger.collection import Ledger
from vlmmem.ledger.conventions import Convention
from vlmmem.ledger.entry import CAUSES, KINDS, Document, Figure
from vlmmem.ledger.files import FOLDER, figure, figures, load, read
from vlmmem.ledger.formulas import Formula
from vlmmem.ledger.readings import readings
from vlmmem.ledger.verdicts import ERRATA, VERDICTS, Evidence, Judgement

__all__ = [
    "CAUSES",
    "ERRATA",
    "FOLDER",
    "KINDS",
    "VERDICTS",
    "Convention",
    "Document",
    "Evidence",
    "Figure",
    "Formula",
    "Judgement",
    "Ledger",
    "figure",
    "figures",
    "load",
    "read",
    "readings",
]
