"""The average of a table of which each step moves a few rows."""

import math

import torch
from torch import Tensor


class RowAverage:
    """The exponential average of a table that is moved by rows, exact, at the cost of the rows that a step moves.

    A row p that no step moves between s and t stays, so its average is avg_t = p + k (avg_s - p) there, with k the
    product of the steps' factors. A row is therefore brought up to date when it is about to move, and all rows are
    when the average is asked for.

    Parameters
    ----------
    average, source : (features, dim), equal at the start; the first is changed in place
    """

    def __init__(self, average: Tensor, source: Tensor) -> None:
        self.average, self.keep = average, 1.0
        self.log_factors = 0.0  # of all steps since the last `settle`, summed
        self.seen = torch.zeros(len(source), dtype=torch.float64, device=source.device)  # that sum, when up to date
        self._source = source

    @torch.no_grad()
    def catch_up(self, rows: Tensor) -> None:
        """Bring rows that are about to move up to date."""
        share = torch.exp(self.log_factors - self.seen[rows]).to(self.average.dtype)
        self.average[rows] = torch.lerp(self._source[rows], self.average[rows], share[:, None])
        self.seen[rows] = self.log_factors

    @torch.no_grad()
    def take(self, rows: Tensor) -> None:
        """Take in rows that have moved; the average keeps the share `keep` of its old value."""
        self.average[rows] = torch.lerp(self._source[rows], self.average[rows], self.keep)
        self.seen[rows] = self.log_factors + math.log(self.keep)

    def pass_step(self) -> None:
        """Count a step, after its rows are taken in."""
        self.log_factors += math.log(self.keep)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all rows up to date: costs the whole table."""
        share = torch.exp(self.log_factors - self.seen).to(self.average.dtype)
        self.average.sub_(self._source).mul_(share[:, None]).add_(self._source)
        self.log_factors = 0.0
        self.seen.zero_()
