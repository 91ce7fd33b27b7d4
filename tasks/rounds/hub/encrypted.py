"""A round under homomorphic encryption at the hub: it adds what it cannot read, and the sites tell it the sum.

This holds against a hub that follows the protocol: it could show the sites one site's ciphertext as if it were a sum,
and they would decrypt it. Masks (`tasks.rounds.hub.masked`) hold against that too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import QuorumMissed, StoreError, StoreUnavailable, UpdateRejected
from tasks.learning.flat import Shape
from tasks.privacy.opened import OpenedSum, read_mean
from tasks.privacy.secure_sum import ckks
from tasks.rounds.hub.answers import wait_for_answers
from tasks.rounds.hub.collect import checked_encrypted, read_vector
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
from tasks.store.identity import is_signed_by
from tasks.store.objects import to_json
from tasks.store.records.round import DecryptedSum, EncryptedSum, Manifest, Plan, Selection
from tasks.store.records.site import Enrolment
from tasks.store.weights import Weights, fetch_model, sha256


def select_encrypted(hub: HubContext, server_round: int) -> Selection:
    """Wait for the encrypted uploads, check them, add them, and freeze the sum that the sites will decrypt.

    Raises:
        QuorumMissed: too few uploads can be used. RoundRefused: the round is closed.
    """
    plan = hub.open_plan(server_round)
    selection = frozen_selection(hub, plan)
    if selection is None:
        selection = _select(hub, plan)
        require_quorum(plan, selection)
        selection = freeze_selection(hub, plan, selection)
    if not hub.store.exists(layout.encrypted_sum(plan.study, server_round)):
        body = ckks.add(_bodies(hub, plan, selection), _num_values(hub, plan))
        hub.store.put(
            layout.encrypted_sum_body(plan.study, server_round), body, content_type="application/octet-stream"
        )
        updates = {chosen.site: chosen.sha256 for chosen in selection.chosen}
        total = EncryptedSum(study=plan.study, server_round=server_round, updates=updates, sha256=sha256(body))
        hub.store.create_record(layout.encrypted_sum(plan.study, server_round), total)
    return selection


def open_encrypted(hub: HubContext, plan: Plan, selection: Selection, base: Weights) -> OpenedSum:
    """Wait for the sites' decryptions and take their median, so that no single site decides what the sum was.

    Raises:
        QuorumMissed: too few sites decrypted the sum before the deadline.
    """
    total = hub.store.get_record(layout.encrypted_sum(plan.study, plan.server_round), EncryptedSum)
    needed = len(total.updates) // 2 + 1
    answered = wait_for_answers(hub, plan, "unmask", total.updates, enough=needed)
    enrolments, found = hub.enrolments(), []
    for site in sorted(answered.given):
        try:
            found.append(_decrypted(hub, plan, total, site, enrolments.get(site), Shape.of(base).num_values))
        except UpdateRejected as error:
            print(f"what site {site} decrypted is not used: {error.reason}")
    if len(found) < needed:
        raise QuorumMissed(f"{len(found)} of {len(total.updates)} sites decrypted the sum, {needed} are needed")
    return read_mean(np.median(found, axis=0), base, [chosen.weight for chosen in selection.chosen])


def _select(hub: HubContext, plan: Plan) -> Selection:
    answers = end_uploads(hub, plan, wait_for_answers(hub, plan))
    enrolments = hub.enrolments()
    length = _num_values(hub, plan)

    def admit(site: str) -> Manifest:
        return checked_encrypted(hub, plan, site, enrolments.get(site), length)[0]

    return select(hub, plan, plan.sites, plan.left_out, answers, admit)


def _bodies(hub: HubContext, plan: Plan, selection: Selection) -> Iterator[bytes]:
    """The selected uploads, one in memory at a time."""
    enrolments, length = hub.enrolments(), _num_values(hub, plan)
    for chosen in selection.chosen:
        manifest, body = checked_encrypted(hub, plan, chosen.site, enrolments.get(chosen.site), length)
        require_selected(manifest, chosen)
        yield body


def _num_values(hub: HubContext, plan: Plan) -> int:
    return Shape.of(fetch_model(hub.store, plan.base_model)).num_values


def _decrypted(
    hub: HubContext, plan: Plan, total: EncryptedSum, site: str, enrolment: Enrolment | None, num_values: int
) -> npt.NDArray[np.float64]:
    """What one site says the sum is: signed by it, about this sum, and finite."""
    try:
        key = layout.unmask_answer(plan.study, plan.server_round, site)
        answer = hub.store.get_record(key, DecryptedSum)
        body = hub.store.get(
            layout.decrypted_sum(plan.study, plan.server_round, site), max_bytes=16 * num_values + 4096
        )
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise UpdateRejected(site, f"it cannot be read ({type(error).__name__})") from None
    unsigned = to_json(answer.model_copy(update={"signature": ""}))
    if enrolment is None or not is_signed_by(enrolment, answer.signature, unsigned):
        raise UpdateRejected(site, "its signature is not the enrolled site's")
    if (answer.site, answer.sum_sha256, answer.values_sha256) != (site, total.sha256, sha256(body)):
        raise UpdateRejected(site, "it is about another sum")
    return read_decrypted(body, num_values, site)


def read_decrypted(body: bytes, num_values: int, site: str) -> npt.NDArray[np.float64]:
    """What a site says a sum is, (values,). Raises UpdateRejected: it is no finite vector of this size."""
    values: npt.NDArray[np.float64] = read_vector(body, "sum", torch.float64, site).numpy()
    if len(values) != num_values or not np.isfinite(values).all():
        raise UpdateRejected(site, "it is no vector of the model's size")
    return values
