"""Under homomorphic encryption: the hub adds what it cannot read, and the sites, who share a key, tell it the sum.

This holds against a hub that follows the protocol: it could show the sites one site's ciphertext as if it were a sum,
and they would decrypt it. Masks (`tasks.rounds.channels.masks`) hold against that too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import (
    ConfigError,
    ObjectMissing,
    PrivacyError,
    QuorumMissed,
    RoundRefused,
    StoreError,
    StoreUnavailable,
    UpdateRejected,
)
from tasks.learning.flat import Shape
from tasks.privacy.opened import OpenedSum, read_mean
from tasks.privacy.secure_sum import ckks
from tasks.rounds.channels.channel import Seal, SiteChannel, SumChannel
from tasks.rounds.hub.answers import wait_for_answers
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
from tasks.store.identity import is_signed_by, sign
from tasks.store.objects import to_json
from tasks.store.records.round import DecryptedSum, EncryptedSum, Manifest, Plan, Selection, TensorSpec
from tasks.store.records.site import Enrolment
from tasks.store.weights import Weights, fetch_model, sha256, to_bytes

#: About 15 million values.
MAX_CIPHERTEXT = 1 << 30


class Site(SiteChannel):
    """One site in one encrypted round: it encrypts its update, and later decrypts the hub's sum.

    Raises (all methods):
        PrivacyError: nothing is encrypted or told. ConfigError: the site has no key. StoreUnavailable: worth a retry.
    """

    def seal(self) -> Seal:
        """Read the key that goes over an update."""
        key = self._key()
        return Seal(encrypt=lambda values: ckks.encrypt(values, key))

    def answer(self) -> None:
        """Decrypt the sum that the hub has frozen, if it is over enough sites, and send back what it is."""
        plan, site = self.plan, self.ctx.site
        try:
            total = self.ctx.store.get_record(layout.encrypted_sum(plan.study, plan.server_round), EncryptedSum)
        except ObjectMissing:
            raise RoundRefused(f"round {plan.server_round}: the hub has not frozen a sum") from None
        own = self.ctx.round_dir(plan.server_round) / "release.safetensors"
        if total.updates.get(site) != sha256(own.read_bytes()):
            raise PrivacyError(f"the sum does not hold the update of site {site}: the site does not decrypt it")
        if len(total.updates) < max(plan.min_sites, 2):
            raise PrivacyError(f"a sum of {len(total.updates)} sites is not decrypted: {plan.min_sites} are needed")
        body = self.ctx.store.get(layout.encrypted_sum_body(plan.study, plan.server_round))
        if sha256(body) != total.sha256:
            raise PrivacyError("the encrypted sum is not the one that the hub froze")
        num_values = Shape.of(fetch_model(self.ctx.store, plan.base_model)).num_values
        self._publish(ckks.decrypt(body, num_values, self._key()), total)

    def _publish(self, values: ckks.Values, total: EncryptedSum) -> None:
        plan, site = self.plan, self.ctx.site
        body = to_bytes({"sum": torch.from_numpy(np.ascontiguousarray(values))})
        self.ctx.store.create(layout.decrypted_sum(plan.study, plan.server_round, site), body)
        answer = DecryptedSum(
            study=plan.study,
            server_round=plan.server_round,
            site=site,
            sum_sha256=total.sha256,
            values_sha256=sha256(body),
        )
        signed = answer.model_copy(update={"signature": sign(self.ctx.secrets_dir, to_json(answer))})
        self.ctx.store.create_record(layout.unmask_answer(plan.study, plan.server_round, site), signed)

    def _key(self) -> bytes:
        try:
            return (self.ctx.secrets_dir / "ckks.key").read_bytes()
        except FileNotFoundError:
            raise ConfigError(
                f"site {self.ctx.site} has no ckks.key in {self.ctx.secrets_dir}: one site makes it with "
                "`pharmafed privacy ckks-key` and hands it to the others, never to the hub"
            ) from None


class Hub(SumChannel):
    """The hub in one encrypted round."""

    def select(self) -> Selection:
        """Wait for the encrypted uploads, check them, add them, and freeze the sum that the sites will decrypt.

        Raises:
            QuorumMissed: too few uploads can be used.
        """
        hub, plan = self.hub, self.plan
        selection = frozen_selection(hub, plan)
        if selection is None:
            selection = self._selection()
            require_quorum(plan, selection)
            selection = freeze_selection(hub, plan, selection)
        if not hub.store.exists(layout.encrypted_sum(plan.study, plan.server_round)):
            body = ckks.add(self._bodies(selection), self._num_values())
            hub.store.put(
                layout.encrypted_sum_body(plan.study, plan.server_round), body, content_type="application/octet-stream"
            )
            updates = {chosen.site: chosen.sha256 for chosen in selection.chosen}
            total = EncryptedSum(study=plan.study, server_round=plan.server_round, updates=updates, sha256=sha256(body))
            hub.store.create_record(layout.encrypted_sum(plan.study, plan.server_round), total)
        return selection

    def total(self, selection: Selection, base: Weights) -> OpenedSum:
        """Wait for the sites' decryptions and take their median, so that no single site decides what the sum was.

        Raises:
            QuorumMissed: too few sites decrypted the sum before the deadline.
        """
        hub, plan = self.hub, self.plan
        total = hub.store.get_record(layout.encrypted_sum(plan.study, plan.server_round), EncryptedSum)
        needed = len(total.updates) // 2 + 1
        answered = wait_for_answers(hub, plan, "unmask", total.updates, enough=needed)
        enrolments, found = hub.enrolments(), []
        for site in sorted(answered.given):
            try:
                found.append(self._decrypted(total, site, enrolments.get(site), Shape.of(base).num_values))
            except UpdateRejected as error:
                print(f"what site {site} decrypted is not used: {error.reason}")
        if len(found) < needed:
            raise QuorumMissed(f"{len(found)} of {len(total.updates)} sites decrypted the sum, {needed} are needed")
        return read_mean(np.median(found, axis=0), base, [chosen.weight for chosen in selection.chosen])

    def missing(self) -> dict[str, str]:
        """See `HubChannel.missing`."""
        return self.why_missing(self._checker())

    def _checker(self) -> Callable[[str], Manifest]:
        enrolments, length = self.hub.enrolments(), self._num_values()
        return lambda site: checked_encrypted(self.hub, self.plan, site, enrolments.get(site), length)[0]

    def _selection(self) -> Selection:
        answers = end_uploads(self.hub, self.plan, wait_for_answers(self.hub, self.plan))
        return select(self.hub, self.plan, self.plan.sites, self.plan.left_out, answers, self._checker())

    def _bodies(self, selection: Selection) -> Iterator[bytes]:
        """The selected uploads, one in memory at a time."""
        hub, plan = self.hub, self.plan
        enrolments, length = hub.enrolments(), self._num_values()
        for chosen in selection.chosen:
            manifest, body = checked_encrypted(hub, plan, chosen.site, enrolments.get(chosen.site), length)
            require_selected(manifest, chosen)
            yield body

    def _num_values(self) -> int:
        return Shape.of(fetch_model(self.hub.store, self.plan.base_model)).num_values

    def _decrypted(
        self, total: EncryptedSum, site: str, enrolment: Enrolment | None, num_values: int
    ) -> npt.NDArray[np.float64]:
        """What one site says the sum is: signed by it, about this sum, and finite."""
        hub, plan = self.hub, self.plan
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


def checked_encrypted(
    hub: HubContext, plan: Plan, site: str, enrolment: Enrolment | None, num_values: int
) -> tuple[Manifest, bytes]:
    """One site's manifest and its ciphertext of so many values, which nobody here can read. Raises UpdateRejected."""
    manifest = checked_manifest(hub, plan, site, enrolment)
    shape = manifest.tensors[0].shape if len(manifest.tensors) == 1 else ()
    if manifest.tensors != (TensorSpec(name="encrypted", shape=shape, dtype="U8"),) or len(shape) != 1:
        raise UpdateRejected(site, "wrong tensors in its manifest")
    if shape[0] > MAX_CIPHERTEXT:
        raise UpdateRejected(site, f"{shape[0]} bytes of ciphertext, more than {MAX_CIPHERTEXT}")
    return manifest, read_encrypted(read_body(hub, plan, manifest), num_values, site)


def read_encrypted(body: bytes | bytearray, num_values: int, site: str) -> bytes:
    """The ciphertext of an upload, which can be added to others of this length. Raises UpdateRejected."""
    encrypted = read_vector(body, "encrypted", torch.uint8, site).numpy().tobytes()
    try:
        ckks.check(encrypted, num_values)
    except PrivacyError as error:
        raise UpdateRejected(site, str(error)) from None
    return encrypted


def read_decrypted(body: bytes, num_values: int, site: str) -> npt.NDArray[np.float64]:
    """What a site says a sum is, (values,). Raises UpdateRejected: it is no finite vector of this size."""
    values: npt.NDArray[np.float64] = read_vector(body, "sum", torch.float64, site).numpy()
    if len(values) != num_values or not np.isfinite(values).all():
        raise UpdateRejected(site, "it is no vector of the model's size")
    return values
