"""Each parser of what another party sends: its valid inputs, how they are spoilt, and what it makes of an input.

A parser gives a value, or raises one of the project's own errors: a refusal. Anything else is a finding. Records that a
site signs are signed again after they were spoilt, half of the time: a site that lies signs its lies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from fuzz import examinations, rounds
from fuzz.mutations import Mutation, spoil_ciphertext, spoil_json, spoil_pem, spoil_tensors
from fuzz.world import BASE, SITE, SITES, World
from tasks.data.checks.runner import CheckResult, ValidationResult
from tasks.errors import UpdateRejected
from tasks.foreign.bounds import shorten
from tasks.learning.flat import norm
from tasks.privacy.codecs import codec_for
from tasks.privacy.codecs.dense import flat_update
from tasks.privacy.ledger.spent import spent
from tasks.privacy.ledger.verification import verify_chain
from tasks.privacy.noise.source import SystemNoise
from tasks.privacy.secure_sum import checks, ckks, opening
from tasks.privacy.secure_sum.records import KeyMessage, Roster, SealingKey, Survivors, UnmaskAnswer
from tasks.privacy.secure_sum.records import record_sha256 as record_sha256
from tasks.rounds.channels.ckks import read_decrypted, read_encrypted
from tasks.rounds.channels.masks.hub import read_masked
from tasks.rounds.hub.card_chain import CardChain
from tasks.rounds.hub.collect import checked_manifest
from tasks.rounds.site.plans import checked_plan
from tasks.store import layout
from tasks.store.hub_signature import sign_as_hub
from tasks.store.identity import validate_certificate
from tasks.store.objects import to_json
from tasks.store.record_size import max_bytes
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.model import ModelCard, Pointer
from tasks.store.records.report import SiteMetrics, SiteRow
from tasks.store.records.round import DecryptedSum, Manifest, Refusal
from tasks.store.records.site import DailyValidation
from tasks.store.weights import from_bytes, sha256, to_bytes
from tasks.study.codec import Float16, Int8, Sparse, StudyCodec, Top

Parse = Callable[[bytes], object]
ROUND = 1
#: The codecs whose bodies are no tensors of the model.
CODECS: dict[str, StudyCodec] = {
    "sparse": Sparse(name="sparse"),
    "float16": Float16(name="float16"),
    "int8": Int8(name="int8", block=16),
    "top": Top(name="top", fraction=0.3),
}
#: What the encrypted update holds.
ENCRYPTED = (0.5, -1.0, 2.0)


class Parser(NamedTuple):
    """What is thrown at, and how."""

    valid: tuple[bytes, ...]
    spoil: Mutation
    parse: Parse


def parsers(world: World) -> dict[str, Parser]:
    """Every parser by name."""
    dense = to_bytes({name: tensor + 1.5 for name, tensor in BASE.items()})
    encoded = {name: _encoded(world, codec) for name, codec in CODECS.items()}
    bodies = (dense, world.masked, *(body for body, _ in encoded.values()))
    ciphertext = ckks.encrypt(np.array(ENCRYPTED), ckks.make_key())
    encrypted = to_bytes({"encrypted": torch.frombuffer(bytearray(ciphertext), dtype=torch.uint8)})
    values = to_bytes({"sum": torch.tensor(ENCRYPTED, dtype=torch.float64)})
    certificate = world.enrolment.certificate_pem.encode()
    key_message = partial(_signed_json, world, KeyMessage, checks.signed)
    sealing_key = partial(_signed_json, world, SealingKey, checks.signed)
    answer = partial(_signed_json, world, UnmaskAnswer, checks.signed)
    manifest = partial(_signed_json, world, Manifest, _sign_json)
    entry = partial(_signed_json, world, LedgerEntry, _sign_json)
    return {
        "tensors": Parser(bodies, spoil_tensors, from_bytes),
        "dense update": Parser((dense,), spoil_tensors, lambda b: norm(flat_update(bytearray(b), world.shape, SITE))),
        **{f"{name} update": Parser((body,), spoil_tensors, parse) for name, (body, parse) in encoded.items()},
        "masked update": Parser(
            (world.masked,), spoil_tensors, lambda b: read_masked(b, world.shape.num_values, SITE).sum()
        ),
        "encrypted update": Parser((encrypted,), spoil_ciphertext, partial(_encrypted, encrypted)),
        "decrypted values": Parser((values,), spoil_tensors, lambda b: read_decrypted(b, len(ENCRYPTED), SITE).sum()),
        "manifest": Parser((to_json(world.manifest),), manifest, partial(_manifest, world)),
        "ledger": Parser((world.entry,), entry, partial(_ledger, world)),
        "ledger's tables": Parser((world.entry,), entry, rounds.spender(world)),
        "closed round": Parser((rounds.sent(world),), spoil_json, rounds.closer(world)),
        "key message": Parser((to_json(world.messages[SITE]),), key_message, partial(_key_message, world)),
        "sealing key": Parser((to_json(world.sealing[SITE]),), sealing_key, partial(_sealing_key, world)),
        "unmask answer": Parser((to_json(world.answer),), answer, partial(_answer, world)),
        "certificate": Parser((certificate,), spoil_pem, lambda b: validate_certificate(b, SITE, world.authority)),
        "refusal": Parser((_refusal(),), spoil_json, partial(_record, world, Refusal, _reason)),
        "metrics": Parser((_metrics(),), spoil_json, partial(_record, world, SiteMetrics, _row)),
        "data validation": Parser((_validation(),), spoil_json, partial(_record, world, ValidationResult, _named)),
        "daily validation": Parser((_daily(),), spoil_json, partial(_record, world, DailyValidation, to_json)),
        "decrypted sum": Parser((_decrypted(),), spoil_json, partial(_record, world, DecryptedSum, to_json)),
        "plan": Parser((to_json(world.plan),), spoil_json, partial(_plan, world)),
        "roster": Parser(
            (to_json(world.roster),), spoil_json, partial(_record, world, Roster, partial(_roster, world))
        ),
        "survivors": Parser(
            (to_json(world.survivors),),
            spoil_json,
            partial(_record, world, Survivors, lambda s: checks.check_survivors(s, world.roster)),
        ),
        "pointer": Parser((_pointer(world),), spoil_json, partial(_record, world, Pointer, to_json)),
        "model card": Parser(
            (to_json(rounds.first_card(world)),),
            partial(_signed_json, world, ModelCard, lambda card, _: sign_as_hub(card, world.folder / "hub")),
            partial(_descent, world),
        ),
        "exam's item": Parser((examinations.ITEM,), spoil_json, examinations.on_disk(examinations.item)),
        "exam's corrections": Parser(
            (examinations.CORRECTIONS,), spoil_json, examinations.on_disk(examinations.corrections)
        ),
    }


def _signed_json(
    world: World, record: type[BaseModel], sign: Callable[..., BaseModel], rng: Random, body: bytes
) -> bytes:
    spoilt = spoil_json(rng, body)
    if rng.random() < 0.5:
        return spoilt
    try:
        return to_json(sign(record.model_validate_json(spoilt), world.sign))
    except (ValidationError, ValueError):
        return spoilt


def _sign_json(record: BaseModel, sign: Callable[[bytes], str]) -> BaseModel:
    return record.model_copy(update={"signature": sign(to_json(record.model_copy(update={"signature": ""})))})


def _record(world: World, record: type[BaseModel], use: Callable[..., object], body: bytes) -> object:
    """As the hub reads it: through the store, within the record's limit, and then what it makes of it."""
    world.store.bodies["record"] = body
    found = world.store.get_record("record", record)
    assert len(to_json(found)) <= max_bytes(record), "a valid record is larger than its limit"
    return use(found)


def _pointer(world: World) -> bytes:
    base = world.plan.base_model
    return to_json(Pointer(study=world.plan.study, server_round=base.server_round, model=base, evaluated_model=base))


def _descent(world: World, body: bytes) -> object:
    """As `pharmafed repair` follows the chain."""
    number = world.plan.base_model.server_round
    world.store.bodies[layout.card(world.plan.study, number)] = body
    return CardChain(world.hub, world.authority).descent(number)


def _manifest(world: World, body: bytes) -> object:
    world.store.bodies[layout.update_manifest(world.plan.study, ROUND, SITE)] = body
    return checked_manifest(world.hub, world.plan, SITE, world.enrolment, record_sha256(world.roster))


def _ledger(world: World, body: bytes) -> object:
    """In the three places where the hub reads ledgers."""
    key = layout.ledger_entry(world.plan.study, SITE, 1)
    world.store.bodies[key] = body
    try:
        spent(world.store, world.plan.study)
        checked_manifest_of = world.manifest.model_copy(update={"ledger_sha256": sha256(body), "signature": ""})
        _manifest_refusal(world, to_json(_sign_json(checked_manifest_of, world.sign)))
        return verify_chain([body, body], None, {}).problems
    finally:
        world.store.bodies[key] = world.entry


def _manifest_refusal(world: World, body: bytes) -> None:
    try:
        _manifest(world, body)
    except UpdateRejected:
        return


def _encoded(world: World, settings: StudyCodec) -> tuple[bytes, Parse]:
    """A body of this codec, and what the hub makes of one."""
    codec = codec_for(settings, world.shape)
    flat = np.arange(world.shape.num_values, dtype=np.float32)
    tensors, _ = codec.encode(flat, None, SystemNoise())
    return to_bytes(tensors), lambda body: norm(codec.read(body, SITE))


def _encrypted(sound: bytes, body: bytes) -> object:
    """What the hub admits adds to what the others send."""
    bodies = [read_encrypted(one, len(ENCRYPTED), SITE) for one in (sound, body)]
    return ckks.add(bodies, len(ENCRYPTED))


def _key_message(world: World, body: bytes) -> object:
    message = checks.read_key_message(body, SITE)
    plan_sha256 = sha256(to_json(world.plan))
    checks.admit_key_message(message, SITE, world.plan.study, ROUND, world.authority, plan_sha256=plan_sha256)
    checks.check_shares(message, SITES, 3)
    return opening.make_roster(world.messages | {SITE: message}, run_id="run", missing={}, tolerated_dropouts=0)


def _sealing_key(world: World, body: bytes) -> object:
    return _record(world, SealingKey, lambda record: checks.check_origin(record, world.authority), body)


def _answer(world: World, body: bytes) -> object:
    def use(answer: UnmaskAnswer) -> object:
        return opening.sift({SITE: answer}, world.roster, world.survivors, world.messages)

    return _record(world, UnmaskAnswer, use, body)


def _plan(world: World, body: bytes) -> object:
    return checked_plan(body, world.study, ROUND, SITE, world.authority)


def _roster(world: World, roster: Roster) -> object:
    return checks.check_roster(roster, world.messages)


def _reason(refusal: Refusal) -> object:
    return SiteRow(site=SITE, contributed=False, reason=shorten(f"rejected: {refusal.step}: {refusal.reason}"))


def _row(metrics: SiteMetrics) -> object:
    return to_json(SiteRow(site=SITE, contributed=True, metrics=metrics, seconds={"x": metrics.seconds}))


def _named(result: ValidationResult) -> object:
    return [check.id for check in result.failures], [check.id for check in result.waived]


def _refusal() -> bytes:
    return to_json(Refusal(study="s", server_round=1, site=SITE, step="train_local", reason="a reason"))


def _metrics() -> bytes:
    metrics = SiteMetrics(
        study="s",
        server_round=1,
        site=SITE,
        model_sha256="0" * 64,
        min_cell=5,
        num_examples=9,
        figures={"log_loss": 0.5, "auc": 0.7},
    )
    return to_json(metrics)


def _validation() -> bytes:
    check = CheckResult(id="adsl/AGE", success=False, waived_by="somebody", note="a note")
    return to_json(ValidationResult(site=SITE, success=True, checks=(check, check)))


def _daily() -> bytes:
    return to_json(DailyValidation(site=SITE, outcomes={"study": "valid", "other": "DataError: no"}))


def _decrypted() -> bytes:
    return to_json(DecryptedSum(study="s", server_round=1, site=SITE, sum_sha256="0" * 64, values_sha256="1" * 64))
