"""Masked rounds up to each of their steps, and what went behind the masks in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.learning.averaging import add_to
from tasks.privacy.opened import interpret
from tasks.privacy.secure_sum import checks, protocol
from tasks.privacy.secure_sum.records import Roster, RoundKeys, Survivors, UnmaskAnswer
from tasks.rounds.channels.masks import hub as hub_masked
from tasks.rounds.hub.phases import freeze_roster, select_updates
from tasks.store import identity as enrolment
from tasks.store import layout, settings
from tasks.store.objects import to_json
from tasks.store.records.round import Plan
from tasks.store.weights import Weights, fetch_model, to_bytes
from tests.rounds.hub.federation import FEW, Federation

SITE = "717"
FIVE = ("709", *FEW)
PRIVACY: dict[str, Any] = {
    "mechanism": "distributed_dp",
    "epsilon": 3,
    "delta": 1e-5,
    "clip_norm": 1,
    "public_num_examples": 211,
    "tolerated_dropouts": 1,
    "colluding_sites": 1,
}
MASKED: dict[str, Any] = {
    "privacy": PRIVACY,
    "channel": "masks",
    "rounds": {"total": 20, "min_sites": 3},
    "evaluation": {"score_bins": 5},
}
NO_PRIVACY = {"mechanism": "none", "i_accept_no_privacy": True}
GAUSSIAN = {"mechanism": "gaussian_update", "epsilon": 3, "delta": 1e-5, "clip_norm": 0.5}
PREPARE, UPLOAD, UNMASK = ("validate_data", "train"), ("privatize_and_upload",), ("unmask",)


class Seen:
    """What the sites put behind masks, and what the hub found when it took them off."""

    def __init__(self) -> None:
        self.contributions: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        self.opened: dict[str, np.ndarray] = {}

    def total(self, study: str, sites: Iterable[str]) -> np.ndarray:
        """The plain sum of the sites' contributions, (values,) int64."""
        values = self.contributions[study]
        return np.sum([values[site] for site in sites], axis=0, dtype=np.int64)


@contextmanager
def watching() -> Iterator[Seen]:
    """All masked rounds of this process meanwhile. No site may mask two vectors with one round's keys."""
    found = Seen()
    mask, read = protocol.mask, hub_masked.interpret

    def spy_mask(values: np.ndarray, keys: RoundKeys, *rest: Any) -> np.ndarray:
        assert keys.site not in found.contributions[keys.study], "a site masked two vectors with one round's keys"
        found.contributions[keys.study][keys.site] = values.copy()
        return mask(values, keys, *rest)

    def spy_read(total: np.ndarray, plan: Plan, *rest: Any) -> Any:
        found.opened[plan.study] = total.copy()
        return read(total, plan, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "mask", spy_mask)
        patch.setattr(hub_masked, "interpret", spy_read)
        yield found


# a round up to each of its steps


def trained(fed: Federation, *, sites: tuple[str, ...] = FEW, **parts: Any) -> str:
    """A study whose first round has all key messages in."""
    study = fed.new_study(sites=sites, **(MASKED | parts))
    fed.open(study)
    assert fed.run_sites(study, 1, names=PREPARE) == {}
    return study


def joined(fed: Federation, **parts: Any) -> str:
    """... and its roster frozen."""
    study = trained(fed, **parts)
    freeze_roster(fed.hub(study), 1)
    return study


def uploaded(fed: Federation, *, lost: Iterable[str] = (), **parts: Any) -> str:
    """... and the uploads in, but for the sites that are lost."""
    study = joined(fed, **parts)
    alive = [site for site in fed.hub(study).study.sites if site not in set(lost)]
    assert fed.run_sites(study, 1, alive, names=UPLOAD) == {}
    if lost:
        fed.set_deadline(study, 1, 0, "upload_deadline")
    return study


def selected(fed: Federation, **parts: Any) -> str:
    """... and the survivors frozen."""
    study = uploaded(fed, **parts)
    select_updates(fed.hub(study), 1)
    return study


def unmasked(fed: Federation, **parts: Any) -> str:
    """... and every survivor has answered."""
    study = selected(fed, **parts)
    assert fed.run_sites(study, 1, survivors_of(fed, study).sites, names=UNMASK) == {}
    return study


def survivors_of(fed: Federation, study: str) -> Survivors:
    return fed.store().get_record(layout.survivors(study, 1), Survivors)


def roster_of(fed: Federation, study: str) -> Roster:
    return fed.store().get_record(layout.roster(study, 1), Roster)


def of(fed: Federation, study: str) -> dict[str, bytes]:
    return fed.objects(layout.study_prefix(study) + "/")


def folder(fed: Federation, study: str, site: str = SITE) -> Path:
    return fed.home / "sites" / site / "rounds" / study / "0001"


def put(fed: Federation, key: str, record: Any) -> None:
    """Write over whatever is there, with the hub's key."""
    fed.store().put(key, record if isinstance(record, bytes) else to_json(record), content_type="application/json")


def base_of(fed: Federation, study: str) -> Weights:
    return fetch_model(fed.store(), fed.hub(study).plan(1).base_model)


def model_of(fed: Federation, study: str) -> bytes:
    return fed.store().get(layout.model(study, 1))


def model_from(fed: Federation, study: str, total: np.ndarray, weights: list[float]) -> bytes:
    """The model that a plain sum of contributions makes."""
    base = base_of(fed, study)
    return to_bytes(add_to(base, interpret(total, fed.hub(study).plan(1), base, weights).delta))


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([weights[name].double().numpy().ravel() for name in sorted(weights)])


def wrote_nothing(fed: Federation, study: str, site: str, seen: Seen) -> None:
    """The site has masked, paid for and sent nothing."""
    assert site not in seen.contributions[study]
    assert not (folder(fed, study, site) / "release.safetensors").exists()
    prefixes = (layout.site_round_prefix(study, 1, site), f"{layout.ledger_prefix(study)}/{site}/")
    written = {key for key in of(fed, study) if key.startswith(prefixes)}
    assert written <= {layout.refusal(study, 1, site), layout.data_validation(study, 1, site)}
    assert layout.data_validation(study, 1, site) in written, "else this looks at the wrong keys"


def signing(secrets: Path) -> Callable[[bytes], str]:
    return lambda message: enrolment.sign(secrets, message)


def forge_answer(fed: Federation, study: str, site: str, forge: Callable[[UnmaskAnswer], UnmaskAnswer]) -> None:
    """A site's own answer, changed and signed again."""
    key = layout.unmask_answer(study, 1, site)
    answer = forge(fed.store().get_record(key, UnmaskAnswer))
    put(fed, key, checks.signed(answer, signing(settings.site_secrets(site))))


def wrong_share(answer: UnmaskAnswer) -> UnmaskAnswer:
    share = answer.self_seed_shares["713"]
    shares = answer.self_seed_shares | {"713": share[:-1] + bytes([share[-1] ^ 1])}
    return answer.model_copy(update={"self_seed_shares": shares})


def files_of(fed: Federation, study: str) -> dict[Path, bytes]:
    """The sites' files of the round; a trained update says how long it took."""
    roots = [fed.home / "sites" / site for site in FEW]
    files = [path for root in roots for part in ("rounds", "ledger") for path in (root / part / study).rglob("*")]
    return {path: path.read_bytes() for path in files if path.is_file() and path.name != "meta.safetensors"}
