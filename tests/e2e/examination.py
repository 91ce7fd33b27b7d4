"""An examination on a real deployment: which exam there is, and a scripted model that changes its mind on purpose."""

from __future__ import annotations

from pathlib import Path

from tasks.exam.asking.questions import Patience, make_job
from tasks.exam.bank.importer import import_exam
from tasks.exam.bank.items import exam_folder, load_exam, save_exam
from tasks.exam.bank.practice import build_practice
from tasks.exam.bank.records import Exam, ExamItem
from tasks.exam.evaluate import settings_for
from tests.exam.scripted_server import Reply, Script
from tests.exam.year_samples import ENVIRONMENT, exam_107_folder

MODEL = "openai-api/scripted/echo"
#: What the scripted model answers otherwise in its second run, and in its third.
DRIFT, CHANCE = 20, 5


def place_exam(data_dir: Path) -> str:
    """Import exam 107 where the environment names its folder; else our own exam is the one, and the log says so."""
    build_practice(data_dir)
    folder = exam_107_folder()
    if folder is None:
        print(f"{ENVIRONMENT} names no folder: the scripted model sits our own exam")
        return "practice"
    exam, _ = import_exam(folder, "107")
    save_exam(exam, exam_folder(data_dir, exam.id))
    return exam.id


def script_for(exam: Exam, images: Path) -> tuple[Script, list[int]]:
    """Right on every item in run 1, wrong on DRIFT items from run 2 on, on CHANCE others in run 3; and which DRIFT."""
    job = make_job(exam, images, settings_for(exam, MODEL, "ja"), 1, Patience())
    by_id = {item.id: item for item in exam.items}
    asked = [by_id[question.item] for question in job.questions]
    drifting = {item.id for item in asked[2 : 2 + 3 * DRIFT : 3]}
    changing = {item.id for item in asked[3 : 3 + 3 * CHANCE : 3]}
    replies = {}
    for question, item in zip(job.questions, asked, strict=True):
        right, wrong = _reply(item, right=True), _reply(item, right=False)
        second = wrong if item.id in drifting else right
        replies[question.text] = (right, second, wrong if item.id in changing else second)
    return Script(replies=replies), sorted(by_id[identity].number for identity in drifting)


def scripted(data_dir: Path, exam_id: str) -> tuple[Script, list[int]]:
    """`script_for` of an exam that lies in `data_dir`."""
    folder = exam_folder(data_dir, exam_id)
    return script_for(load_exam(folder), folder / "images")


def _reply(item: ExamItem, *, right: bool) -> Reply:
    """An accepted answer by its labels, or as many other options: the first n that are no accepted set."""
    accepted = {frozenset(answer) for answer in item.answers}
    options = [str(number) for number in range(1, item.num_choices + 1)]
    sets = (options[start : start + item.n_select] for start in range(item.num_choices))
    wrong = next(one for one in sets if len(one) == item.n_select and {*one} not in accepted)
    said = item.answers[0] if right else wrong
    return Reply(f"答え: {','.join(item.labels[int(number) - 1] for number in said)}")
