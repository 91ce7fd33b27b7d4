"""A study that the project has never seen: asthma attacks within a year, six clinics, two tables, the same every time.

The outcome follows from age, earlier attacks, smoking, eosinophils and FEV1 at the start; one more column,
`rescue_course`, is the outcome under another name, and visits after the start show it, too.
"""

from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

#: Clinic -> its code in the tables, and its patients.
CLINICS = {
    "aalborg": ("C-01", 62),
    "bergen": ("C-02", 48),
    "cork": ("C-03", 55),
    "delft": ("C-04", 37),
    "evora": ("C-05", 41),
    "fulda": ("C-06", 57),
}
NUM_PATIENTS = 300
PATIENTS = (
    "patient_id",
    "clinic",
    "enrolled",
    "age",
    "sex",
    "smoking",
    "bmi",
    "eosinophils",
    "earlier_attacks",
    "remarks",
    "rescue_course",
    "exacerbation",
)
SPIROMETRY = ("patient_id", "day", "quality", "fev1", "feno")
DAYS = (-7, 0, 90)
#: What a suite or a study file must never name: one patient's remark, and a kind of smoking that two have.
RARE_SMOKING = "pipe"
REMARK = "lives beside the quarry"

Row = dict[str, Any]


def write_unseen_study(folder: Path, *, seed: int = 20) -> Path:
    """Write `<folder>/<clinic>/patients.csv` and `spirometry.csv` for every clinic; returns the folder."""
    rng = np.random.default_rng(seed)
    for clinic, (code, count) in CLINICS.items():
        patients = [_patient(rng, clinic, code, number) for number in range(1, count + 1)]
        visits = [_visit(rng, patient, day) for patient in patients for day in DAYS]
        write_csv(folder / clinic / "patients.csv", PATIENTS, patients)
        write_csv(folder / clinic / "spirometry.csv", SPIROMETRY, visits)
    return folder


def write_csv(path: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _patient(rng: np.random.Generator, clinic: str, code: str, number: int) -> Row:
    age, attacks = int(rng.integers(18, 76)), int(rng.poisson(1.2))
    eosinophils, obstruction = float(np.exp(rng.normal(5.3, 0.7))), float(rng.normal())
    smoking = str(rng.choice(["never", "former", "current"], p=[0.55, 0.3, 0.15]))
    logit = 0.03 * (age - 47) + 0.9 * (attacks - 1.2) + 1.1 * (np.log(eosinophils) - 5.3) + 1.2 * obstruction
    attack = rng.random() < 1 / (1 + np.exp(-(logit + (0.9 if smoking == "current" else -0.3))))
    return {
        "patient_id": f"P{number:03d}",
        "clinic": code,
        "enrolled": date(2023, 1, 9) + timedelta(days=int(rng.integers(0, 400))),
        "age": age,
        "sex": str(rng.choice(["F", "M"], p=[0.58, 0.42])),
        "smoking": RARE_SMOKING if (clinic, number) in (("cork", 3), ("fulda", 9)) else smoking,
        "bmi": "" if rng.random() < 0.04 else round(float(rng.normal(27, 4.5)), 1),
        "eosinophils": round(eosinophils),
        "earlier_attacks": attacks,
        "remarks": REMARK if (clinic, number) == ("delft", 5) else f"note {rng.integers(10**9)} of {clinic}",
        "rescue_course": "yes" if attack else "no",
        "exacerbation": int(attack),
        "obstruction": obstruction,
    }


def _visit(rng: np.random.Generator, patient: Row, day: int) -> Row:
    later = 0.8 * patient["exacerbation"] if day > 0 else 0.0
    return {
        "patient_id": patient["patient_id"],
        "day": day,
        "quality": str(rng.choice(["A", "B", "C"], p=[0.7, 0.2, 0.1])),
        "fev1": round(float(2.8 - 0.5 * patient["obstruction"] - later + rng.normal(0, 0.15)), 2),
        "feno": "" if rng.random() < 0.05 else round(float(np.exp(rng.normal(3.2, 0.5)))),
    }


if __name__ == "__main__":
    import sys

    print(write_unseen_study(Path(sys.argv[1])))
