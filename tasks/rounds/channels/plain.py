"""In the open: the hub reads every update, and averages those that pass every check."""

from __future__ import annotations

from tasks.learning.flat import Shape
from tasks.learning.strategies import strategy_of
from tasks.learning.strategies.strategy import Combiner
from tasks.rounds.channels.channel import HubChannel, Opened, SiteChannel
from tasks.rounds.hub.answers import wait_for_answers
from tasks.rounds.hub.collect import checked_update
from tasks.rounds.hub.selection import (
    chosen_update,
    end_uploads,
    freeze_selection,
    frozen_selection,
    require_quorum,
    require_selected,
    select,
)
from tasks.store.records.round import Manifest, Selection
from tasks.store.weights import Weights, fetch_model


class Site(SiteChannel):
    """One site in one round: its update leaves as it is."""


class Hub(HubChannel):
    """The hub in one round: it selects and averages in one pass over the updates; some strategies hold them all."""

    def open(self, base: Weights) -> Opened:
        """See `HubChannel.open`. Raises UpdateRejected: an update that an earlier run has selected was exchanged."""
        selection, selected, mean = frozen_selection(self.hub, self.plan), None, self._combiner(base)
        if selection is None:
            selected = self._select_and_add(mean)
            selection = freeze_selection(self.hub, self.plan, selected)
        if selection == selected:
            return Opened(selection, mean.mean())
        return Opened(selection, self._mean_of_selected(selection, self._combiner(base)))

    def missing(self) -> dict[str, str]:
        """See `HubChannel.missing`."""
        base, enrolments = fetch_model(self.hub.store, self.plan.base_model), self.hub.enrolments()
        shape = Shape.of(strategy_of(self.plan.strategy).sent(base))
        return self.why_missing(lambda site: checked_update(self.hub, self.plan, site, enrolments.get(site), shape)[0])

    def _combiner(self, base: Weights) -> Combiner:
        return strategy_of(self.plan.strategy).combiner(base)

    def _select_and_add(self, mean: Combiner) -> Selection:
        """One pass over the updates, by site name: each is checked, added and freed before the next is read."""
        hub, plan = self.hub, self.plan
        answers, enrolments = end_uploads(hub, plan, wait_for_answers(hub, plan)), hub.enrolments()

        def admit(site: str) -> Manifest:
            manifest, update = checked_update(hub, plan, site, enrolments.get(site), mean.shape)
            mean.add(update, chosen_update(manifest, plan).weight)
            return manifest

        selection = select(hub, plan, plan.sites, plan.left_out, answers, admit)
        require_quorum(plan, selection)
        return selection

    def _mean_of_selected(self, selection: Selection, mean: Combiner) -> Weights:
        """The mean over what another run selected. Raises UpdateRejected: an update was exchanged since."""
        enrolments = self.hub.enrolments()
        for chosen in selection.chosen:
            manifest, update = checked_update(self.hub, self.plan, chosen.site, enrolments.get(chosen.site), mean.shape)
            require_selected(manifest, chosen)
            mean.add(update, chosen.weight)
        return mean.mean()
