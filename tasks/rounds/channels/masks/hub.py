"""A masked round at the hub: who takes part, whose uploads count, and their sum. The hub never sees one update."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from cryptography import x509

from tasks.errors import (
    ObjectExists,
    ObjectMissing,
    PrivacyError,
    QuorumMissed,
    StoreError,
    StoreUnavailable,
    UpdateRejected,
)
from tasks.foreign.bounds import shorten
from tasks.learning.flat import Shape
from tasks.privacy.opened import OpenedSum, interpret, num_values
from tasks.privacy.secure_sum import opening
from tasks.privacy.secure_sum.checks import admit_key_message, check_shares, min_survivors, read_key_message
from tasks.privacy.secure_sum.protocol import open_sealing_keys
from tasks.privacy.secure_sum.records import KeyMessage, Roster, SealingKey, Survivors, UnmaskAnswer, record_sha256
from tasks.privacy.secure_sum.shamir import threshold_for
from tasks.rounds.channels.channel import SumChannel
from tasks.rounds.hub.answers import Answers, read_answers, wait_for_answers, why_silent
from tasks.rounds.hub.collect import checked_manifest, read_body, read_vector
from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.selection import (
    end_uploads,
    freeze_selection,
    frozen_selection,
    require_quorum,
    require_selected,
    select,
)
from tasks.store import layout
from tasks.store.objects import to_json
from tasks.store.record_size import max_bytes
from tasks.store.records.round import Manifest, Plan, Selection, TensorSpec
from tasks.store.records.site import Enrolment
from tasks.store.weights import Weights, fetch_model
from tasks.store.weights import sha256 as body_sha256
from tasks.study.privacy import noise_shares


class Hub(SumChannel):
    """The hub in one masked round.

    `freeze` fixes whose masks there are before a site masks anything; `select` fixes whose uploads are summed before a
    site helps to open the sum; `total` takes the masks off that one sum.
    """

    @staticmethod
    def why_out(hub: HubContext, site: str) -> str:
        """Why nobody can seal to a site, where nobody can: one such site would keep all others from their masks."""
        try:
            record = hub.store.get_record(layout.sealing_key(site), SealingKey)
            open_sealing_keys({site: record}, hub.authority)
        except ObjectMissing:
            return "it has published no sealing key"
        except StoreUnavailable:
            raise
        except (StoreError, PrivacyError) as error:
            return f"its sealing key: {error}"
        return ""

    def freeze(self) -> Roster:
        """Wait for the sites' keys, then fix who takes part. A rerun finds the first run's roster.

        Raises:
            QuorumMissed: fewer than `min_sites` usable key messages arrived in time.
        """
        hub, plan = self.hub, self.plan
        try:
            return self.roster()
        except ObjectMissing:
            pass
        messages, missing = self._key_messages(wait_for_answers(hub, plan, "keys"))
        if len(messages) < plan.min_sites:
            reasons = "; ".join(f"{site}: {reason}" for site, reason in sorted(missing.items()))
            raise QuorumMissed(f"{len(messages)} sites can be masked, {plan.min_sites} are needed. Missing: {reasons}")
        dropouts, _ = noise_shares(plan.privacy)
        roster = opening.make_roster(messages, run_id=plan.run_id, missing=missing, tolerated_dropouts=dropouts)
        try:
            hub.store.create_record(layout.roster(plan.study, plan.server_round), roster)
        except ObjectExists:  # another run has frozen one at the same moment
            return self.roster()
        return roster

    def select(self) -> Selection:
        """Wait for the masked uploads, check their manifests, then fix whose sum is opened.

        Raises:
            QuorumMissed: too few uploads, or so few that the noise they bring would not be enough.
        """
        hub, plan, roster = self.hub, self.plan, self.roster()
        selection = frozen_selection(hub, plan)
        if selection is None:
            selection = self._selection(roster)
            fewest = min_survivors(roster)
            if len(selection.chosen) < fewest:
                raise QuorumMissed(
                    f"{len(selection.chosen)} of {len(roster.members)} masked updates can be used. With under {fewest} "
                    "their sum would hold too little noise, so it stays shut"
                )
            selection = freeze_selection(hub, plan, selection)
        survivors = opening.freeze_survivors(roster, [chosen.site for chosen in selection.chosen])
        hub.store.create_record(layout.survivors(plan.study, plan.server_round), survivors)
        return selection

    def total(self, selection: Selection, base: Weights) -> OpenedSum:
        """Wait for enough survivors' shares, take the masks off the sum, and read it.

        Raises:
            QuorumMissed: too few shares arrived before the deadline.
        """
        roster, survivors = self.roster(), self._survivors()
        messages = {site: self._key_message(site) for site in roster.members}
        answers = self._enough_answers(roster, survivors, messages)
        total = self._summed_uploads(selection, roster, base)
        opened = opening.open_sum(total, roster, survivors, messages, answers)
        for site, reason in opened.rejected.items():
            print(f"the answer of site {site} was not used: {reason}")
        return interpret(opened.values, self.plan, base, [chosen.weight for chosen in selection.chosen])

    def missing(self) -> dict[str, str]:
        """See `HubChannel.missing`. A masked update is not looked at again."""
        hub, plan = self.hub, self.plan
        try:
            roster = self.roster()
        except ObjectMissing:
            answers = read_answers(hub, plan, "keys")
            reasons = {site: why_silent(hub, plan, site, answers) for site in plan.sites if site not in answers.given}
            joined = {site: "it joined, but the round had no roster" for site in answers.given}
            return {**plan.left_out, **reasons, **joined}
        answers = read_answers(hub, plan, "updates", roster.members)
        reasons = {site: why_silent(hub, plan, site, answers) for site in roster.members if site not in answers.given}
        uploaded = {site: "a masked update, but the round made no model" for site in answers.given}
        return {**roster.missing, **reasons, **uploaded}

    def roster(self) -> Roster:
        """The round's roster. Raises ObjectMissing before it is frozen."""
        return self.hub.store.get_record(layout.roster(self.plan.study, self.plan.server_round), Roster)

    def _survivors(self) -> Survivors:
        return self.hub.store.get_record(layout.survivors(self.plan.study, self.plan.server_round), Survivors)

    def _key_messages(self, answers: Answers) -> tuple[dict[str, KeyMessage], dict[str, str]]:
        """Usable key messages, and why each other site has none."""
        hub, plan = self.hub, self.plan
        enrolled, authority = hub.enrolments(), hub.authority
        messages: dict[str, KeyMessage] = {}
        missing = dict(plan.left_out)
        for site in sorted(plan.sites):
            if site not in answers.given:
                missing[site] = why_silent(hub, plan, site, answers)
                continue
            try:
                if site not in enrolled:
                    raise PrivacyError("the site is not enrolled, or its enrolment was revoked")
                messages[site] = self._admitted(site, authority)
            except StoreUnavailable:
                raise
            except (PrivacyError, StoreError) as error:
                missing[site] = shorten(f"rejected: {error}")
        return messages, missing

    def _admitted(self, site: str, authority: x509.Certificate) -> KeyMessage:
        """One site's key message, after every check that every other site will make of it. Raises PrivacyError."""
        plan = self.plan
        key = layout.key_message(plan.study, plan.server_round, site)
        message = read_key_message(self.hub.store.get(key, max_bytes=max_bytes(KeyMessage)), site)
        plan_sha256 = body_sha256(to_json(plan))
        admit_key_message(message, site, plan.study, plan.server_round, authority, plan_sha256=plan_sha256)
        _, colluding = noise_shares(plan.privacy)
        check_shares(message, plan.sites, threshold_for(len(plan.sites), colluding))
        return message

    def _key_message(self, site: str) -> KeyMessage:
        return self.hub.store.get_record(layout.key_message(self.plan.study, self.plan.server_round, site), KeyMessage)

    def _selection(self, roster: Roster) -> Selection:
        hub, plan = self.hub, self.plan
        answers = end_uploads(hub, plan, wait_for_answers(hub, plan, "updates", roster.members))
        enrolments, digest = hub.enrolments(), record_sha256(roster)
        length = num_values(plan, Shape.of(fetch_model(hub.store, plan.base_model)))

        def admit(site: str) -> Manifest:
            return checked_masked(hub, plan, site, enrolments.get(site), length, digest)[0]

        selection = select(hub, plan, roster.members, roster.missing, answers, admit)
        require_quorum(plan, selection)
        return selection

    def _summed_uploads(self, selection: Selection, roster: Roster, base: Weights) -> npt.NDArray[np.uint64]:
        """The survivors' uploads added modulo 2^64, one in memory at a time."""
        hub, plan = self.hub, self.plan
        enrolments, digest = hub.enrolments(), record_sha256(roster)
        total = np.zeros(num_values(plan, Shape.of(base)), dtype=np.uint64)
        for chosen in selection.chosen:
            manifest, masked = checked_masked(hub, plan, chosen.site, enrolments.get(chosen.site), len(total), digest)
            require_selected(manifest, chosen)
            total += masked
        return total

    def _enough_answers(
        self, roster: Roster, survivors: Survivors, messages: dict[str, KeyMessage]
    ) -> dict[str, UnmaskAnswer]:
        """Wait until enough of the answers can be used, or no more will come."""
        enough = roster.threshold
        while True:
            given = wait_for_answers(self.hub, self.plan, "unmask", survivors.sites, enough=enough).given
            answers = self._unmask_answers(given)
            usable, _ = opening.sift(answers, roster, survivors, messages)
            if len(usable) >= roster.threshold or len(given) < enough:
                return answers
            enough = len(given) + roster.threshold - len(usable)

    def _unmask_answers(self, sites: set[str]) -> dict[str, UnmaskAnswer]:
        """What the survivors told; an answer that cannot be read counts as not given."""
        answers: dict[str, UnmaskAnswer] = {}
        for site in sorted(sites):
            try:
                key = layout.unmask_answer(self.plan.study, self.plan.server_round, site)
                answers[site] = self.hub.store.get_record(key, UnmaskAnswer)
            except StoreUnavailable:
                raise
            except StoreError as error:
                print(shorten(f"the answer of site {site} cannot be read: {error}"))
        return answers


def checked_masked(
    hub: HubContext, plan: Plan, site: str, enrolment: Enrolment | None, num_values: int, roster_sha256: str
) -> tuple[Manifest, npt.NDArray[np.uint64]]:
    """One site's manifest and its masked integers, (values,). What they hide is checked once their sum is opened.

    Raises:
        UpdateRejected: with the first reason found. StoreUnavailable: worth a retry.
    """
    manifest = checked_manifest(hub, plan, site, enrolment, roster_sha256)
    if manifest.tensors != (TensorSpec(name="masked", shape=(num_values,), dtype="U64"),):
        raise UpdateRejected(site, "wrong tensors in its manifest")
    return manifest, read_masked(read_body(hub, plan, manifest), num_values, site)


def read_masked(body: bytes | bytearray, num_values: int, site: str) -> npt.NDArray[np.uint64]:
    """The masked integers of an upload, (values,). Raises UpdateRejected: it holds anything else."""
    masked = read_vector(body, "masked", torch.uint64, site)
    if len(masked) != num_values:
        raise UpdateRejected(site, f"{len(masked)} masked integers, the plan asks for {num_values}")
    return masked.numpy()
