"""How hard an audit tries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Numbers of trials; the defaults take about two minutes on one core with releases of 5 ms a site and round.

    `site_rounds` is what the canaries, and again the membership test, may call for: releases of one site in one round.
    """

    max_rounds: int = 20
    site_rounds: int = 5_000
    min_transcripts: int = 40
    max_transcripts: int = 120
    raw_draws: int = 60
    reconstruction_trials: int = 12
    raw_trials: int = 6
    starts: int = 12
    iterations: int = 500

    def transcripts(self, rounds: int, sites: int) -> int:
        """Whole transcripts that `site_rounds` pays for, an even number."""
        paid = self.site_rounds // (rounds * sites)
        return 2 * (min(max(paid, self.min_transcripts), self.max_transcripts) // 2)
