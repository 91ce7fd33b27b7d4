"""Study files: what ships loads, and what a file cannot mean is refused with line, key and what would be allowed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import GenericAlias
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, Field

from tasks.data.checks.suites import all_columns
from tasks.errors import ConfigError
from tasks.foreign.yaml_file import read_yaml
from tasks.store.settings import PROJECT
from tasks.study import file as study_file
from tasks.study.channels import PLAIN
from tasks.study.file import load_studies, load_study
from tasks.study.privacy import DistributedDP, NoPrivacy, noise_shares, sent_fraction
from tasks.study.sections import LEAKING_COLUMNS, Study, Training
from tasks.study.strategy import STRATEGY_SECTIONS

COLUMNS = {
    "adsl": {"USUBJID", "AGE", "SEX", "COMP24FL", "TRTDURD"},
    "advs": {"USUBJID", "PARAMCD", "AVAL", "ADY"},
}
GOOD = """\
study: small
title: A small study
description: Two inputs.
owner: data-science
data:
  tables: [adsl, advs]
sites:
  "701": ["701"]
  pool: ["702", "703"]
label:
  name: left_early
  table: adsl
  positive_when:
    - {column: COMP24FL, is_not: "Y"}
inputs:
  - {name: age, table: adsl, column: AGE, centre: 75, scale: 8}
  - name: pulse
    table: advs
    column: AVAL
    where: {PARAMCD: PULSE}
    on_or_before: [ADY, 1]
    reduce: mean
    centre: 72
    scale: 10
model:
  path: tasks.models:LogisticRegression
training:
  lr: 0.3
  local_iterations: 1
  weighting: plain
privacy:
  mechanism: local_dp
  epsilon: 3
  delta: 0.00001
  clip_norm: 1
  public_num_examples: 50
rounds:
  total: 20
  min_sites: 2
  deadline_seconds: 60
evaluation:
  holdout_fraction: 0.2
"""
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return path

    return write


def line_of(text: str, part: str) -> int:
    """The 1-based line that `part` begins, else the one that it stands on; there must be one only."""
    numbered = list(enumerate(text.splitlines(), 1))
    lines = [number for number, line in numbered if line.startswith(part)]
    lines = lines or [number for number, line in numbered if part in line]
    assert len(lines) == 1, part
    return lines[0]


# what ships


def test_what_desktops_leave_behind_is_no_study_and_no_suite(tmp_path: Path) -> None:
    for folder in ("studies", "expectations"):
        shutil.copytree(PROJECT / folder, tmp_path / folder)
    (tmp_path / "studies/._xanomeline_derm56.yaml").write_bytes(b"\0\5\x16\7")
    (tmp_path / "expectations/._adsl.json").write_bytes(b"\0\5\x16\7")
    columns = all_columns(tmp_path / "expectations")
    assert columns == all_columns(PROJECT / "expectations")
    assert list(load_studies(tmp_path / "studies", columns=columns)) == list(load_studies(PROJECT / "studies"))


def test_both_shipped_studies_load_against_the_suites() -> None:
    studies = load_studies(PROJECT / "studies", columns=all_columns(PROJECT / "expectations"))
    derm, nocomp = studies["xanomeline_derm56"], studies["xanomeline_nocomp24"]
    assert isinstance(derm.privacy, DistributedDP)
    assert (derm.channel.name, derm.evaluation.score_bins) == ("masks", 5)
    assert isinstance(nocomp.privacy, NoPrivacy)
    assert (nocomp.channel.name, nocomp.evaluation.score_bins) == ("plain", None)
    for study in (derm, nocomp):
        assert (len(study.sites), len(study.inputs)) == (13, 22)
        assert sum(len(members) for members in study.sites.values()) == 17
        assert study.input_names[:2] == ["active_arm", "dose"]


def test_a_good_file_loads(write: Write) -> None:
    study = load_study(write(GOOD), columns=COLUMNS)
    assert study.input_names == ["age", "pulse"]
    assert study.inputs[1].on_or_before == ("ADY", 1)
    assert study.privacy.epsilon == 3
    assert (study.training.optimizer, study.training.batch_size) == ("sgd", "full")


# refusals: (what is replaced, by what, the line's text, what the message says after the line)

NO_PRIVACY = re.search(r"privacy:\n(?:  .*\n)+", GOOD).group()  # type: ignore[union-attr]
REFUSALS: dict[str, tuple[str, str, str, str]] = {
    "unknown key": (
        "  lr: 0.3",
        "  lr: 0.3\n  momentum: 0.9",
        "momentum",
        "training.momentum: unknown key; allowed: optimizer, lr",
    ),
    "unknown key at the top": (
        "owner: data",
        "budget: 3\nowner: data",
        "budget",
        "budget: unknown key; allowed: study, title",
    ),
    "unknown key of an input": (
        "centre: 72",
        "center: 72\n    centre: 72",
        "center",
        "inputs.1.center: unknown key; allowed: name, table",
    ),
    "unknown key of privacy": (
        "  clip_norm: 1",
        "  clip_norm: 1\n  gamma: 2",
        "gamma",
        "privacy.gamma: unknown key; allowed: epsilon, delta, clip_norm, public_num_examples, mechanism",
    ),
    "missing key": ("  lr: 0.3\n", "", "training:", "training.lr: Field required"),
    "negative epsilon": ("epsilon: 3", "epsilon: -3", "epsilon", "privacy.epsilon: Input should be greater than 0"),
    "epsilon that is no number": ("epsilon: 3", "epsilon: .nan", "epsilon", "privacy.epsilon: Input should be"),
    "delta of 1": ("0.00001", "1", "delta", "privacy.delta: Input should be less than 0.1"),
    "wrong type": ("lr: 0.3", "lr: fast", "lr:", "training.lr: Input should be a valid number"),
    "wrong choice": (
        "  lr: 0.3",
        "  lr: 0.3\n  optimizer: lion",
        "lion",
        "training.optimizer: Input should be 'sgd' or 'adam'",
    ),
    "quorum above the sites": (
        "min_sites: 2",
        "min_sites: 3",
        "min_sites",
        "rounds.min_sites is 3, but the study has 2 sites",
    ),
    "unknown column": ("column: AGE", "column: AEG", "AEG", "table adsl has no column AEG; it has: AGE, COMP24FL, SEX"),
    "unknown column of the label": ("COMP24FL", "COMP99", "COMP99", "table adsl has no column COMP99; it has: AGE"),
    "unknown column in where": (
        "{PARAMCD: PULSE}",
        "{PARAM: PULSE}",
        "{PARAM:",
        "table advs has no column PARAM; it has: ADY, AVAL",
    ),
    "unknown day": ("[ADY, 1]", "[DAY, 1]", "DAY", "table advs has no column DAY; it has: ADY"),
    "leaking column": (
        "column: AGE",
        "column: TRTDURD",
        "TRTDURD",
        "inputs.0.column: TRTDURD is known only after the outcome",
    ),
    "leaking column in where": ("{PARAMCD: PULSE}", "{EFFFL: Y}", "EFFFL", "EFFFL is known only after the outcome"),
    "unknown table of an input": (
        "table: advs",
        "table: adlb",
        "table: adlb",
        "inputs.1.table is adlb, which is not among data.tables: adsl, advs",
    ),
    "unknown table of the label": (
        "left_early\n  table: adsl",
        "left_early\n  table: adtte",
        "adtte",
        "label.table is adtte, which is not among data.tables: adsl, advs",
    ),
    "table without a suite": (
        "[adsl, advs]",
        "[adsl, advs, dm]",
        "tables",
        "data.tables: no suite for table dm; there is one for: adsl, advs",
    ),
    "unknown mechanism": (
        "mechanism: local_dp",
        "mechanism: magic",
        "privacy:",
        "privacy: Input tag 'magic' found using 'mechanism' does not match any of the expected tags: "
        "'none', 'local_dp', 'distributed_dp', 'gaussian_update', 'svt'",
    ),
    "two local iterations": (
        "local_iterations: 1",
        "local_iterations: 2",
        "local_iterations",
        "training.local_iterations must be 1 with privacy.mechanism local_dp",
    ),
    "Adam under local_dp": (
        "  lr: 0.3",
        "  lr: 0.3\n  optimizer: adam",
        "adam",
        "training.optimizer must be sgd with privacy.mechanism local_dp",
    ),
    "batches under local_dp": (
        "  lr: 0.3",
        "  lr: 0.3\n  batch_size: 8",
        "batch_size",
        "training.batch_size must be full with privacy.mechanism local_dp",
    ),
    "weighting by samples": (
        "weighting: plain",
        "weighting: samples",
        "weighting",
        "training.weighting must be plain or iterations with privacy.mechanism local_dp",
    ),
    "none without consent": (
        NO_PRIVACY,
        "privacy:\n  mechanism: none\n",
        "privacy:",
        "privacy.i_accept_no_privacy: Field required",
    ),
    "none with consent refused": (
        NO_PRIVACY,
        "privacy:\n  mechanism: none\n  i_accept_no_privacy: false\n",
        "i_accept",
        "privacy.i_accept_no_privacy: Input should be True",
    ),
    "epochs and iterations": (
        "  lr: 0.3",
        "  lr: 0.3\n  local_epochs: 2",
        "training:",
        "training: give exactly one of: local_epochs, local_iterations",
    ),
    "two comparisons": (
        'is_not: "Y"',
        'is_not: "Y", is: "N"',
        "COMP24FL",
        "label.positive_when.0: give exactly one of: is, is_not",
    ),
    "reduce without a column": ("    column: AVAL\n", "", "- name: pulse", "inputs.1: reduce: mean needs a column"),
    "a SITEID twice": ('["702", "703"]', '["702", "701"]', "sites:", "sites hold one SITEID twice"),
    "an input twice": ("name: pulse", "name: age", "inputs:", "inputs use a name twice"),
    "a scale of zero": ("scale: 10", "scale: 0", "scale: 0", "inputs.1.scale: Input should be greater than 0"),
    "a name that is no file name": (
        "name: pulse",
        "name: Pulse rate",
        "Pulse rate",
        "inputs.1.name: String should match pattern",
    ),
}


# refusals of a mechanism, by itself or with a channel: (the file, the line's text, what the message says)


def small(privacy: str, *, masks: bool = False, sites: int = 5, **replaced: str) -> str:
    """GOOD with another privacy section, with masks or not; `replaced` are lines of the file by the key they hold."""
    names = "".join(f'  s{number}: ["{800 + number}"]\n' for number in range(sites))
    text = GOOD.replace('  "701": ["701"]\n  pool: ["702", "703"]\n', names)
    text = text.replace(NO_PRIVACY, f"privacy:\n{privacy}{'channel: masks' if masks else ''}\n")
    text = text.replace("min_sites: 2", f"min_sites: {min(sites, 4)}")
    for key, line in replaced.items():
        found = re.findall(rf"^ *{key}: .*\n", text, re.MULTILINE)
        assert len(found) == 1, key
        text = text.replace(found[0], f"  {line}\n")
    return text


NONE = "  mechanism: none\n  i_accept_no_privacy: true\n"
TOP = "  mechanism: top\n  fraction: 0.1\n  i_accept_no_privacy: true\n"
RANDOM = TOP.replace("top", "random")
LOCAL = "  mechanism: local_dp\n  epsilon: 3\n  delta: 0.00001\n  clip_norm: 1\n  public_num_examples: 50\n"
DISTRIBUTED = LOCAL.replace("local_dp", "distributed_dp")
GAUSSIAN = "  mechanism: gaussian_update\n  epsilon: 3\n  delta: 0.00001\n  clip_norm: 1\n"
SVT = "  mechanism: svt\n  epsilon: 3\n  delta: 0.00001\n  fraction: 0.1\n  gamma: 0.5\n  tau: 0.1\n"
BINS = "holdout_fraction: 0.2\n  score_bins: 5"

ACCEPTED = {
    "none": small(NONE),
    "none by samples": small(NONE, weighting="weighting: samples"),
    "none behind masks": small(NONE, masks=True),
    "none behind masks, by samples": small(NONE, masks=True, weighting="weighting: samples"),
    "top": small(TOP),
    "top by samples": small(TOP, weighting="weighting: samples"),
    "random": small(RANDOM),
    "local_dp": small(LOCAL),
    "distributed_dp": small(DISTRIBUTED, masks=True),
    "distributed_dp with counts": small(DISTRIBUTED, masks=True, holdout_fraction=BINS),
    "distributed_dp of three sites": small(DISTRIBUTED, masks=True, sites=3),
    "distributed_dp that may lose three of five": small(
        f"{DISTRIBUTED}  tolerated_dropouts: 3\n", masks=True, min_sites="min_sites: 5"
    ),
    "gaussian_update": small(GAUSSIAN),
    "gaussian_update of one site": small(GAUSSIAN, sites=1),
    "gaussian_update behind masks": small(GAUSSIAN, masks=True),
    "svt": small(SVT),
    "svt by iterations": small(SVT, weighting="weighting: iterations"),
    "svt with a threshold at the bound": small(SVT, tau="tau: 0.5"),
}
_NOT_BEHIND_MASKS = "channel must be plain with privacy.mechanism "
_BINS = "evaluation.score_bins needs privacy.mechanism distributed_dp"
_WEIGHTING = "training.weighting must be plain or iterations with privacy.mechanism "
MECHANISM_REFUSALS: dict[str, tuple[str, str, str]] = {
    "distributed_dp without a channel": (
        small(DISTRIBUTED),
        "study: small",
        "channel must be masks with privacy.mechanism distributed_dp",
    ),
    "distributed_dp without masks": (
        small(DISTRIBUTED, masks=True).replace("channel: masks", "channel: plain"),
        "channel",
        "channel must be masks with privacy.mechanism distributed_dp",
    ),
    "local_dp behind masks": (small(LOCAL, masks=True), "channel", f"{_NOT_BEHIND_MASKS}local_dp"),
    "svt behind masks": (small(SVT, masks=True), "channel", f"{_NOT_BEHIND_MASKS}svt"),
    "top behind masks": (
        small(TOP, masks=True),
        "  mechanism",
        "privacy.mechanism: codec.name must be dense with channel masks: encodings of top do not add",
    ),
    "random under encryption": (
        small(RANDOM) + "channel: ckks\n",
        "  mechanism",
        "privacy.mechanism: codec.name must be dense with channel ckks: encodings of random do not add",
    ),
    "int8 behind masks": (
        small(NONE, masks=True) + "codec: {name: int8}\n",
        "codec:",
        "codec.name: codec.name must be dense with channel masks: encodings of int8 do not add",
    ),
    "a codec that nobody knows": (
        small(NONE) + "codec: {name: zip}\n",
        "codec:",
        "codec: Input tag 'zip' found using 'name' does not match any of the expected tags: 'dense', 'sparse'",
    ),
    "a codec without a name": (small(NONE) + "codec: {}\n", "codec:", "codec: Unable to extract tag"),
    "a codec that is a word": (small(NONE) + "codec: int8\n", "codec:", "codec: "),
    "an unknown key of a codec": (
        small(NONE) + "codec:\n  name: int8\n  blocks: 64\n",
        "  blocks",
        "codec.blocks: unknown key; allowed: name, block, rounding, error_feedback",
    ),
    "a rounding that nobody knows": (
        small(NONE) + "codec:\n  name: int8\n  rounding: up\n",
        "  rounding",
        "codec.rounding: Input should be 'nearest' or 'stochastic'",
    ),
    "top without a fraction": (
        small(NONE) + "codec: {name: top}\n",
        "codec:",
        "codec.fraction: Field required",
    ),
    "top without a fraction, as it was spelled once": (
        small(TOP.replace("  fraction: 0.1\n", "")),
        "privacy:",
        "privacy.fraction: Field required",
    ),
    "a codec in both places": (
        small(TOP) + "codec: {name: int8}\n",
        "  mechanism",
        "privacy.mechanism top is a codec, and codec stands here too: set privacy.mechanism: none",
    ),
    "an unknown channel": (
        small(NONE, masks=True).replace("channel: masks", "channel: magic"),
        "channel",
        "channel: must be plain, masks or ckks",
    ),
    "counts under local_dp": (small(LOCAL, holdout_fraction=BINS), "  score_bins", _BINS),
    "counts under none": (small(NONE, masks=True, holdout_fraction=BINS), "  score_bins", _BINS),
    "counts under gaussian_update": (small(GAUSSIAN, masks=True, holdout_fraction=BINS), "  score_bins", _BINS),
    "counts in one bin": (
        small(DISTRIBUTED, masks=True, holdout_fraction=BINS.replace("5", "1")),
        "  score_bins",
        "evaluation.score_bins: Input should be greater than or equal to 2",
    ),
    "counts in too many bins": (
        small(DISTRIBUTED, masks=True, holdout_fraction=BINS.replace("5", "101")),
        "  score_bins",
        "evaluation.score_bins: Input should be less than or equal to 100",
    ),
    "masks over two sites": (
        small(NONE, masks=True, sites=2),
        "channel",
        "channel masks needs at least 3 sites",
    ),
    "masks over one site": (
        small(NONE, masks=True, sites=1),
        "channel",
        "channel masks needs at least 3 sites",
    ),
    "masks that a minority opens": (
        small(DISTRIBUTED, masks=True, min_sites="min_sites: 3"),
        "  min_sites",
        "rounds.min_sites is 3, but masks over 5 sites with 1 colluding open with 4 or more",
    ),
    "masks of three that two open": (
        small(NONE, masks=True, sites=3, min_sites="min_sites: 2"),
        "  min_sites",
        "rounds.min_sites is 2, but masks over 3 sites with 1 colluding open with 3 or more",
    ),
    "more colluding sites than the quorum stands": (
        small(f"{DISTRIBUTED}  colluding_sites: 3\n", masks=True),
        "  min_sites",
        "rounds.min_sites is 4, but masks over 5 sites with 3 colluding open with 5 or more",
    ),
    "more lost sites than the noise stands": (
        small(f"{GAUSSIAN}  tolerated_dropouts: 3\n", masks=True),
        "  min_sites",
        "rounds.min_sites is 4, but masks over 5 sites with 1 colluding open with 5 or more",
    ),
    "every site may collude": (
        small(f"{DISTRIBUTED}  colluding_sites: 5\n", masks=True, min_sites="min_sites: 5"),
        "  min_sites",
        "rounds.min_sites is 5, but masks over 5 sites with 5 colluding open with 7 or more",
    ),
    "a negative number of lost sites": (
        small(f"{DISTRIBUTED}  tolerated_dropouts: -1\n", masks=True),
        "  tolerated_dropouts",
        "privacy.tolerated_dropouts: Input should be greater than or equal to 0",
    ),
    "a threshold above the bound": (
        small(SVT, tau="tau: 0.6"),
        "privacy:",
        "privacy.tau is 0.6, above privacy.gamma 0.5: nothing would pass it",
    ),
    "a share of nothing": (
        small(f"{SVT}  shares:\n    release: 0\n"),
        "    release",
        "privacy.shares.release: Input should be greater than 0",
    ),
    "an unknown share": (
        small(f"{SVT}  shares:\n    noise: 1\n"),
        "    noise",
        "privacy.shares.noise: unknown key; allowed: query, threshold, release",
    ),
    "a fraction of nothing": (
        small(TOP.replace("0.1", "0")),
        "  fraction",
        "privacy.fraction: Input should be greater than 0",
    ),
    "more than all components": (
        small(SVT.replace("0.1", "1.5")),
        "  fraction",
        "privacy.fraction: Input should be less than or equal to 1",
    ),
    "top without consent": (
        small(TOP.replace("  i_accept_no_privacy: true\n", "")),
        "privacy:",
        "privacy.i_accept_no_privacy: Field required",
    ),
    "random with consent refused": (
        small(RANDOM.replace("true", "false")),
        "  i_accept_no_privacy",
        "privacy.i_accept_no_privacy: Input should be True",
    ),
    "distributed_dp by samples": (
        small(DISTRIBUTED, masks=True, weighting="weighting: samples"),
        "  weighting",
        f"{_WEIGHTING}distributed_dp",
    ),
    "svt by samples": (small(SVT, weighting="weighting: samples"), "  weighting", f"{_WEIGHTING}svt"),
    "gaussian_update by samples": (
        small(GAUSSIAN, weighting="weighting: samples"),
        "  weighting",
        "training.weighting must be plain",
    ),
    "gaussian_update by iterations": (
        small(GAUSSIAN, weighting="weighting: iterations"),
        "  weighting",
        "training.weighting must be plain with privacy.mechanism gaussian_update",
    ),
    "an unknown strategy": (
        small(NONE) + "strategy:\n  name: fed_magic\n",
        "strategy:",
        "strategy: Input tag 'fed_magic' found using 'name' does not match any of the expected tags: 'fed_avg'",
    ),
    "an unknown key of a strategy": (
        small(NONE) + "strategy:\n  name: fed_adam\n  momentum: 0.9\n",
        "  momentum",
        "strategy.momentum: unknown key; allowed: server_lr, beta_1, tau, name, beta_2",
    ),
    "a server rate of nothing": (
        small(NONE) + "strategy:\n  name: fed_adam\n  server_lr: 0\n",
        "  server_lr",
        "strategy.server_lr: Input should be greater than 0",
    ),
    "a momentum of one": (
        small(NONE) + "strategy:\n  name: fed_avg_m\n  momentum: 1\n",
        "  momentum",
        "strategy.momentum: Input should be less than 1",
    ),
    "fed_prox without mu": (small(NONE) + "strategy:\n  name: fed_prox\n", "strategy:", "strategy.mu: Field required"),
    "fed_prox of one step": (
        small(LOCAL) + "strategy:\n  name: fed_prox\n  mu: 0.1\n",
        "  name: fed_prox",
        "strategy.name must be fed_avg or fed_avg_m or fed_adam or fed_yogi or fed_adagrad or fine_tune or ditto "
        "where a site takes one local step: fed_prox needs several",
    ),
    "too few for a trim": (
        small(NONE) + "strategy:\n  name: trimmed_mean\n  trim: 2\n",
        "  min_sites",
        "rounds.min_sites is 4, but strategy.name trimmed_mean needs 5 updates for what it promises",
    ),
    "too few for Krum": (
        small(NONE) + "strategy:\n  name: krum\n  byzantine: 1\n",
        "  min_sites",
        "rounds.min_sites is 4, but strategy.name krum needs 5 updates for what it promises",
    ),
    "Krum that keeps two": (
        small(NONE) + "strategy:\n  name: krum\n  byzantine: 0\n  keep: 2\n",
        "strategy:",
        "strategy.keep is 1 with strategy.name krum, and above 1 with multi_krum",
    ),
    "a median of weighted sites": (
        small(NONE, weighting="weighting: samples") + "strategy:\n  name: median\n",
        "  weighting",
        "training.weighting must be plain with strategy.name median: each site counts once",
    ),
    "a median of some components": (
        small(TOP) + "strategy:\n  name: median\n",
        "  name: median",
        "strategy.name must be fed_avg or fed_avg_m or fed_adam or fed_yogi or fed_adagrad or fed_bn or fine_tune or "
        "ditto with codec.name top: median compares whole updates",
    ),
    "two local iterations under distributed_dp": (
        small(DISTRIBUTED, masks=True, local_iterations="local_iterations: 2"),
        "  local_iterations",
        "training.local_iterations must be 1 with privacy.mechanism distributed_dp",
    ),
    "Adam under distributed_dp": (
        small(DISTRIBUTED, masks=True, lr="lr: 0.3\n  optimizer: adam"),
        "  optimizer",
        "training.optimizer must be sgd with privacy.mechanism distributed_dp",
    ),
    "batches under distributed_dp": (
        small(DISTRIBUTED, masks=True, lr="lr: 0.3\n  batch_size: 8"),
        "  batch_size",
        "training.batch_size must be full with privacy.mechanism distributed_dp",
    ),
}


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_each_mechanism_loads_with_the_channels_it_has(text: str, write: Write) -> None:
    study = load_study(write(text), columns=COLUMNS)
    assert study.privacy.mechanism in text or text in (ACCEPTED["top"], ACCEPTED["top by samples"], ACCEPTED["random"])
    assert (study.channel.name == "masks") == ("channel: masks" in text)
    assert noise_shares(study.privacy) == ((3, 1) if "dropouts: 3" in text else (1, 1))
    sent = getattr(study.codec, "fraction", None) or sent_fraction(study.privacy)
    assert sent == (0.1 if "fraction: 0.1" in text else None)


@pytest.mark.parametrize("case", MECHANISM_REFUSALS)
def test_what_a_mechanism_cannot_mean_is_refused_where_it_stands(case: str, write: Write) -> None:
    text, on_line, says = MECHANISM_REFUSALS[case]
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_study(path, columns=COLUMNS)
    message = str(caught.value)
    assert says in message
    assert f"{path}:{line_of(text, on_line)}: " in message
    assert len(message.splitlines()) == 1, "one mistake, one line"


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_name_the_line_the_key_and_what_is_allowed(case: str, write: Write) -> None:
    old, new, on_line, says = REFUSALS[case]
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_study(path, columns=COLUMNS)
    message = str(caught.value)
    assert says in message
    assert f"{path}:{line_of(text, on_line)}: " in message
    assert len(message.splitlines()) == 1, "one mistake, one line"


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    text = GOOD.replace("lr: 0.3", "lr: -1").replace("epsilon: 3", "epsilon: 0").replace("total: 20", "total: 0")
    with pytest.raises(ConfigError) as caught:
        load_study(write(text))
    assert [re.search(r"yaml:\d+: ([\w.]+):", line).group(1) for line in str(caught.value).splitlines()] == [  # type: ignore[union-attr]
        "training.lr",
        "privacy.epsilon",
        "rounds.total",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("study: small", "study: large"), ":1: study is 'large', but the file is named small.yaml"),
        (GOOD.replace("tables: [adsl, advs]", "tables: [adsl, advs"), ":7: not readable as YAML: "),
        ("- a\n- b\n", ": a study is a mapping of keys; this file holds none"),
        ("just a text\n", ": a study is a mapping of keys; this file holds none"),
        ("", ": a study is a mapping of keys; this file holds none"),
        (GOOD + "---\n" + GOOD, "not readable as YAML"),
        (GOOD.replace("title: A", "title: !!python/object/apply:os.getcwd []\nx: A"), ":2: a tag"),
    ],
    ids=["another name", "broken", "a list", "a text", "empty", "two documents", "a Python object"],
)
def test_files_that_are_no_study_are_refused(text: str, says: str, write: Write) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_bytes(GOOD.replace("A small", "A smäll").encode("latin-1"))
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load_study(path)


def test_a_missing_file_names_the_studies_that_there_are(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no study file .*other\.yaml; studies in .*: none"):
        load_study(tmp_path / "other.yaml")
    write(GOOD)
    with pytest.raises(ConfigError, match=r"no study file .*other\.yaml; studies in .*: small"):
        load_study(tmp_path / "other.yaml")


@pytest.mark.parametrize(
    "column",
    [
        *("TRTDUR", "TRTDURD", "AVGDD", "CUMDOSE", "TRTEDT", "VISNUMEN", "RFENDTC", "RFENDT", "EOSSTT", "CNSR"),
        *("COMP8FL", "COMP16FL", "COMP24FL", "EFFFL", "DISCONFL", "DSRAEFL", "DTHFL", "DCDECOD", "DCREASCD"),
    ],
)
def test_columns_that_tell_the_outcome_are_known(column: str) -> None:
    assert LEAKING_COLUMNS.match(column)


@pytest.mark.parametrize("column", ["AGE", "TRT01P", "AVAL", "ADY", "MHDY", "CMTRT", "SITEID", "MMSETOT", "ABLFL"])
def test_columns_known_at_first_dose_are_allowed(column: str) -> None:
    assert not LEAKING_COLUMNS.match(column)


# digest


def reordered(value: Any) -> Any:
    """The same content with every mapping in reverse order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


def test_the_digest_is_of_the_meaning_not_of_the_text(write: Write) -> None:
    digests = {load_study(write(GOOD)).digest}
    other = yaml.safe_dump(reordered(yaml.safe_load(GOOD)), sort_keys=False)
    assert other.splitlines()[0] == "evaluation:"
    for text in ("# a comment\n" + GOOD, GOOD.replace("epsilon: 3", "epsilon: 3.0"), other):
        assert text != GOOD
        path = write(text)
        os.utime(path, ns=(0, len(digests) + len(text)))
        digests.add(load_study(path).digest)
    assert len(digests) == 1


class _LaterTraining(Training):
    momentum: float = 0.0
    schedule: dict[str, float] = Field(default_factory=dict)


class _LaterStudy(Study):
    training: _LaterTraining
    personal_layers: tuple[str, ...] = ()


def test_a_key_that_a_later_version_knows_changes_the_digest_of_no_study_without_it(write: Write) -> None:
    content = yaml.safe_load(GOOD)
    before, later = Study.model_validate(content), _LaterStudy.model_validate(content)
    assert later.training.momentum == 0.0
    assert later.digest == before.digest
    content["training"]["momentum"] = 0.9
    assert _LaterStudy.model_validate(content).digest != before.digest


@pytest.mark.parametrize("name", STRATEGY_SECTIONS)
def test_a_strategy_changes_the_digest_unless_it_is_the_mean(name: str) -> None:
    content = yaml.safe_load(small(NONE, local_iterations="local_iterations: 3"))
    needed = {"trim": 0, "byzantine": 0, "mu": 0.1, "layers": ["linear"]}
    content["rounds"]["min_sites"] = 2
    content["training"]["weighting"] = "plain"
    fields = STRATEGY_SECTIONS[name].model_fields
    given = {"name": name} | {key: value for key, value in needed.items() if key in fields}
    if STRATEGY_SECTIONS[name].needs_each:
        content["sites"] = {f"s{n}": [f"s{n}"] for n in range(5)}
        content["rounds"]["min_sites"] = 5
        given |= {"keep": 2} if name == "multi_krum" else {}
    plain = Study.model_validate(content)
    assert (Study.model_validate(content | {"strategy": given}).digest == plain.digest) == (name == "fed_avg")


def test_a_default_that_is_written_out_changes_no_digest() -> None:
    content = yaml.safe_load(GOOD)
    short = Study.model_validate(content)
    written = Study.model_validate(short.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert len(written.model_fields_set) > len(short.model_fields_set)
    assert written.digest == short.digest


#: Every round, card and ledger of a study holds its digest.
SHIPPED = {
    "xanomeline_derm56": "b433a98d7d8512a9859d74ec76018a06be97b13ca49305366c980ecaa3568825",
    "xanomeline_nocomp24": "c7d48ad60ceab3c2b97f657699936442073a389e58ee1e3c87c58e396f3f5c4f",
}


def test_the_shipped_studies_have_the_digests_that_their_rounds_were_opened_with() -> None:
    assert {name: study.digest for name, study in load_studies(PROJECT / "studies").items()} == SHIPPED


# codecs that were mechanisms once

#: The digests that studies with these sections had when they were mechanisms.
ONCE = {
    "top": (TOP, {"name": "top", "fraction": 0.1}, "1c9562a21f1ba22ca2492db1a12668a0248dfa6b78b3aa493db6e78f0146d66d"),
    "random": (
        RANDOM,
        {"name": "random", "fraction": 0.1},
        "d5e0807b05e7eef5913740e697f4e9fe552893f1f93c18f0292dfe8deb81299e",
    ),
    "top, error feedback": (
        f"{TOP}  error_feedback: true\n",
        {"name": "top", "fraction": 0.1, "error_feedback": True},
        "42e54d81380da58950e3efea49a4f632ef347f36e1a87ccfe7925df716a8a523",
    ),
    "random, said to have none": (
        f"{RANDOM}  error_feedback: false\n",
        {"name": "random", "fraction": 0.1},
        "d5e0807b05e7eef5913740e697f4e9fe552893f1f93c18f0292dfe8deb81299e",
    ),
}


@pytest.mark.parametrize("case", ONCE)
def test_a_codec_that_was_a_mechanism_is_read_and_the_digest_is_what_it_was(case: str, write: Write) -> None:
    section, codec, digest = ONCE[case]
    then = load_study(write(small(section)))
    content = yaml.safe_load(small(NONE)) | {"codec": codec}
    now = Study.model_validate(content)
    assert (then.privacy.mechanism, then.codec.name) == ("none", codec["name"])
    assert then == now
    assert then.digest == now.digest == digest
    again = Study.model_validate(then.model_dump(by_alias=True, exclude_unset=True))
    assert (again, again.digest) == (then, digest)
    assert Study.model_validate(content | {"codec": codec | {"fraction": 0.2}}).digest != digest


def test_the_default_codec_is_no_part_of_a_digest_and_any_other_is(write: Write) -> None:
    plain = load_study(write(small(NONE)))
    content = yaml.safe_load(small(NONE))
    said = [{"name": "dense"}, {"name": "sparse"}, {"name": "float16"}, {"name": "int8"}, {"name": "int8", "block": 64}]
    digests = [Study.model_validate(content | {"codec": codec}).digest for codec in said]
    assert digests[0] == plain.digest
    assert len(set(digests)) == len(said)


@pytest.mark.parametrize("section", [LOCAL, GAUSSIAN, SVT])
def test_after_a_mechanism_that_promises_top_is_a_codec_and_has_a_digest_of_its_own(section: str, write: Write) -> None:
    content = yaml.safe_load(small(section)) | {"codec": {"name": "top", "fraction": 0.1}}
    study = Study.model_validate(content)
    assert (study.privacy.mechanism in section, study.codec.name) == (True, "top")
    assert study.digest != load_study(write(small(section))).digest


# what a channel was called once


@pytest.mark.parametrize("channel", ["plain", "masks", "ckks"])
def test_a_channel_is_read_under_its_old_key_too_and_the_digest_is_one(channel: str, write: Write) -> None:
    studies = []
    for key in ("channel", "aggregation"):
        path = write(small(NONE) + f"{key}: {channel}\n")
        os.utime(path, ns=(0, len(key)))
        studies.append(load_study(path))
    now, then = studies
    assert then.channel is now.channel
    assert (then.channel.name, then) == (channel, now)
    assert then.digest == now.digest
    said = now.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    said |= {"aggregation": said.pop("channel")} if channel != "plain" else {}
    assert now.digest == hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("second", ["masks", "plain", "magic", "null", "[masks]"])
def test_both_keys_at_once_are_refused_at_the_line_of_the_old_one(second: str, write: Write) -> None:
    text = small(NONE) + f"channel: masks\naggregation: {second}\n"
    with pytest.raises(ConfigError) as refused:
        load_study(write(text))
    (told,) = str(refused.value).splitlines()
    assert re.fullmatch(
        rf".*small\.yaml:{len(text.splitlines())}: aggregation: is what channel was called once, and channel stands "
        "here too: leave aggregation out",
        told,
    )


@pytest.mark.parametrize("key", ["channel", "aggregation"])
@pytest.mark.parametrize("value", ["magic", "Masks", "null", "3", "[masks]", "{masks: 1}", "''", "no"])
def test_what_names_no_channel_is_refused_at_its_line_under_either_key(key: str, value: str, write: Write) -> None:
    text = small(NONE) + f"{key}: {value}\n"
    with pytest.raises(ConfigError) as refused:
        load_study(write(text))
    (told,) = str(refused.value).splitlines()
    assert told.endswith(f"small.yaml:{len(text.splitlines())}: {key}: must be plain, masks or ckks")


@pytest.mark.parametrize("key", ["channel", "aggregation"])
def test_a_rule_that_names_the_channel_is_told_at_the_line_of_either_key(key: str, write: Write) -> None:
    text = small(LOCAL) + f"{key}: masks\n"
    with pytest.raises(ConfigError, match=rf":{len(text.splitlines())}: channel: channel must be plain with "):
        load_study(write(text))


@pytest.mark.parametrize("place", ["rounds", "training", "data"])
def test_the_old_key_within_a_section_is_an_unknown_key(place: str, write: Write) -> None:
    content = yaml.safe_load(small(NONE))
    content[place]["aggregation"] = "masks"
    with pytest.raises(ConfigError, match=rf"{place}\.aggregation: unknown key; allowed: "):
        load_study(write(yaml.safe_dump(content)))


def _defaults(schema: type[BaseModel]) -> dict[str, Any]:
    """`Section.key` -> its default, of a section and all below it."""
    found: dict[str, Any] = {}
    todo: list[Any] = [schema]
    while todo:
        kind = todo.pop()
        todo += get_args(kind)
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)) or isinstance(kind, GenericAlias):
            continue
        for name, field in kind.model_fields.items():
            todo.append(field.annotation)
            if not field.is_required():
                found[f"{kind.__name__}.{name}"] = field.get_default(call_default_factory=True)
    return found


#: Under a digest that leaves them out, another default would give old files another meaning: only new keys may come.
DEFAULTS = {
    "BudgetShares.query": 1.0,
    "BudgetShares.release": 1.0,
    "BudgetShares.threshold": 1.0,
    "ColumnRules.above_limit": None,
    "ColumnRules.below_limit": None,
    "ColumnRules.decimal": None,
    "ColumnRules.missing": (),
    "ColumnRules.same": {},
    "Condition.at_least": None,
    "Condition.at_most": None,
    "Condition.is_": None,
    "Condition.is_not": None,
    "Data.max_missing": 0.2,
    "Data.pin": "data.dvc",
    "Data.root": "data/sites",
    "Data.subject": "USUBJID",
    "Data.suites": "expectations",
    "DistributedDP.colluding_sites": 1,
    "DistributedDP.tolerated_dropouts": 1,
    "Evaluation.data_are_public": False,
    "Evaluation.min_cell": 5,
    "Evaluation.score_bins": None,
    "Evaluation.split_seed": 0,
    "FedAdagradSettings.beta_1": 0.0,
    "FedAdagradSettings.server_lr": 0.1,
    "FedAdagradSettings.tau": 0.001,
    "FedAdamSettings.beta_1": 0.9,
    "FedAdamSettings.beta_2": 0.99,
    "FedAdamSettings.server_lr": 0.1,
    "FedAdamSettings.tau": 0.001,
    "FedAvgMSettings.momentum": 0.9,
    "FedAvgMSettings.server_lr": 1.0,
    "FedAvgSettings.name": "fed_avg",
    "FedYogiSettings.beta_1": 0.9,
    "FedYogiSettings.beta_2": 0.99,
    "FedYogiSettings.server_lr": 0.1,
    "FedYogiSettings.tau": 0.001,
    "FineTuneSettings.times": 1,
    "GaussianUpdate.colluding_sites": 1,
    "GaussianUpdate.tolerated_dropouts": 1,
    "Input.clip": 4.0,
    "Input.codes": None,
    "Dense.name": "dense",
    "Float16.error_feedback": True,
    "Int8.block": 1024,
    "Int8.error_feedback": True,
    "Int8.rounding": "nearest",
    "Random.error_feedback": False,
    "Top.error_feedback": False,
    "BinaryLabel.task": "binary",
    "BinaryLabel.threshold": 0.5,
    "CountLabel.counted_when": (),
    "CountLabel.time_column": None,
    "CountLabel.time_most": None,
    "CountLabel.time_table": None,
    "CountLabel.time_unit": 1.0,
    "CountLabel.time_where": {},
    "CoxLabel.where": {},
    "MulticlassLabel.where": {},
    "MulticlassLabel.without_rows": None,
    "RegressionLabel.minus": None,
    "RegressionLabel.reduce": "only",
    "RegressionLabel.where": {},
    "SurvivalLabel.where": {},
    "Input.column": None,
    "Input.gain": 1.0,
    "Input.max_missing": None,
    "Input.missing_as": None,
    "Input.on_or_before": None,
    "Input.other": None,
    "Input.reduce": "only",
    "Input.transform": "identity",
    "Input.where": {},
    "KrumSettings.keep": 1,
    "Input.within": None,
    "Model.options": {},
    "Reading.above_limit": None,
    "Reading.below_limit": None,
    "Reading.columns": {},
    "Reading.decimal": None,
    "Reading.missing": (),
    "Rounds.max_update_norm": 1000.0,
    "Rounds.strict": False,
    "ScaffoldSettings.server_lr": 1.0,
    "Study.channel": PLAIN,
    "Study.closed": False,
    "Training.average_iterates": "none",
    "Training.batch_size": "full",
    "Training.l2": 0.0,
    "Training.local_epochs": None,
    "Training.local_iterations": None,
    "Training.optimizer": "sgd",
    "Training.optimizer_state": "restart",
    "Training.seed": 0,
    "Training.weighting": "iterations",
}


def test_no_default_changes() -> None:
    plain = {name: value for name, value in _defaults(Study).items() if not isinstance(value, BaseModel)}
    assert {name: value for name, value in plain.items() if name in DEFAULTS} == DEFAULTS
    assert plain.keys() - DEFAULTS.keys() == set(), "a new key's default belongs into the table"


def test_the_digest_changes_with_the_meaning(write: Write) -> None:
    texts = [
        GOOD,
        GOOD.replace("epsilon: 3", "epsilon: 4"),
        GOOD.replace("centre: 72", "centre: 73"),
        GOOD.replace("AGE", "SEX"),
    ]
    digests = set()
    for number, text in enumerate(texts):
        path = write(text)
        os.utime(path, ns=(0, number))
        digests.add(load_study(path).digest)
    assert len(digests) == len(texts)


# cache


def test_a_file_is_parsed_once_until_it_changes(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(GOOD)
    os.utime(path, ns=(0, 1_000))
    first = load_study(path)
    reads: list[Path] = []
    monkeypatch.setattr(study_file, "read_yaml", lambda path: (reads.append(path), read_yaml(path))[1])
    assert load_study(path) is first
    assert reads == []
    path.write_text(GOOD.replace("epsilon: 3", "epsilon: 5"))
    os.utime(path, ns=(0, 2_000))
    assert load_study(path).privacy.epsilon == 5
    assert reads == [path]


def test_a_file_that_was_wrong_is_read_again_once_it_is_right(write: Write) -> None:
    with pytest.raises(ConfigError):
        load_study(write("study: small\n"))
    assert load_study(write(GOOD)).study == "small"
