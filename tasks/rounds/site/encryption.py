"""A site's side of a round under homomorphic encryption: it encrypts its update, and later decrypts the hub's sum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tasks.errors import ConfigError, ObjectMissing, PrivacyError, RoundRefused
from tasks.learning.flat import Shape
from tasks.privacy.secure_sum import ckks
from tasks.rounds.site.context import SiteContext
from tasks.store import layout
from tasks.store.identity import sign
from tasks.store.objects import to_json
from tasks.store.records.round import DecryptedSum, EncryptedSum, Plan
from tasks.store.weights import fetch_model, sha256, to_bytes


class Encryption:
    """One site in one encrypted round.

    Raises (all methods):
        PrivacyError: nothing is encrypted or told. ConfigError: the site has no key. StoreUnavailable: worth a retry.
    """

    def __init__(self, ctx: SiteContext, plan: Plan) -> None:
        self.ctx, self.plan = ctx, plan

    def prepare(self) -> Callable[[ckks.Values], bytes]:
        """Read the key; what this returns puts an update under it."""
        key = self._key()
        return lambda values: ckks.encrypt(values, key)

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
