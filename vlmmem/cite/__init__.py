"""Figures outside the ledger: roles in prose, citations, the published export, checks of other people's documents."""
