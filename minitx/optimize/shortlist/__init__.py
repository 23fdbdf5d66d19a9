"""Vocabulary shortlists: only some rows of the output head are computed, and the tables that choose them."""

from minitx.optimize.shortlist.head import shortlisted, undo_vocabulary_shortlist, vocabulary_shortlist
from minitx.optimize.shortlist.table import ShortlistTable

__all__ = ["ShortlistTable", "shortlisted", "undo_vocabulary_shortlist", "vocabulary_shortlist"]
