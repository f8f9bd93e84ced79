"""Ranking items for a context: the best rows that both make, without scoring them one by one."""

from attfm.serve.ranking.catalogue import Catalogue
from attfm.serve.ranking.ranker import Ranker, Ranking

__all__ = ["Catalogue", "Ranker", "Ranking"]
