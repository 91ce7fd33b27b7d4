"""## Does a language model still answer the pharmacists' examination as it did?

Puts an exam to every model in every language, scores it as the paper does, and compares it item by item with the last
run of the same model and settings, and with an older one, the anchor, against which slow change shows.

**Runs** on the first of each month at 02:00 UTC, and on trigger. Each model and language is a process of its own; the
pool `llm` says how many at once.
**Reads** `data/exams/<exam>/`; keys of the models' providers from the environment, such as `OPENAI_API_KEY`.
**Writes** `exams/<exam>/<model>/<language>/<time>/` at the hub and in the object store: replies, scores, comparison and
report, and `exams/<exam>/<model>/history.html`; and an event of the asset `pharmafed://exams/<exam>`, or of its alias
`llm_exam` for any exam, that other DAGs can be scheduled on.

| parameter | meaning |
|---|---|
| `exam` | a folder of `data/exams`; `practice` is built when it is missing |
| `models` | as inspect names them, one a line; `pharmafed/smollm2` is bundled, needs no key, and guesses |
| `languages` | `ja`, `en`; the bundled model reads no Japanese, the national examination is in nothing else |
| `epochs` | how often each item is asked |
| `limit` | only so many items, from the first |
| `temperature` | of every model; 0 unless given |
| `max_tokens` | of one reply, reasoning included; by the model unless given: 4096, the bundled one 48 |
| `images` | whether diagrams are sent as pictures; by the model unless given |
| `prompt` | `exams/prompts/<language>/<prompt>.yaml`; by the model unless given |
| `baseline` | a run to compare with besides: `<model>/<language>/<time>` below `exams/<exam>` |

`check_drift` is red when a model has drifted, for better or worse, and tells the channels of PHARMAFED_NOTIFY_URLS
which of the two comparisons says so. Each is tested at 2.5%, so that a run of a model that has not changed raises an
alarm in at most 5% of cases. That is per run of one model in one language: over twelve months at least one such false
alarm comes with a probability of up to 46%, and every further model or language adds its own. The anchor is the last
run that raised an alarm, or else the first: an alarm is raised once.

A reply that the limit of tokens cut off is no answer and is counted apart. A model that does not answer is tried again
every five minutes for an hour; a refused key is not. Either leaves its own tasks red and the others alone; clear them,
and only what was not answered is asked. An item that never works need not hold back the rest: on the hub,
`pharmafed exam ask <exam> --model <model> --language <language> --out <the run's folder> --leave <item>` finishes the
run without it, with a range of points and no pass verdict; then clear the task.

**Does not** ask an item twice that was answered, count a failed call as a wrong answer, or stop on an answer that it
cannot read.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset, AssetAlias, Param, get_current_context, task, task_group

from dags.wiring import DEFAULTS, asked, nightly, tell_of_drift, tell_of_failure

RESULTS = AssetAlias("llm_exam")
#: Made by the deployment, which knows how many models at once its machine and its providers bear.
POOL = "llm"


@task(do_xcom_push=True, on_failure_callback=tell_of_failure)
def plan_arms() -> list[dict[str, str]]:
    """Every model in every language, once the exam is there."""
    from tasks.exam.evaluate import plan_arms

    params = asked()
    return [arm.model_dump() for arm in plan_arms(params["exam"], params["models"], params["languages"])]


@task(on_failure_callback=tell_of_failure, outlets=[RESULTS], pool=POOL)
def evaluate(arm: dict[str, str]) -> None:
    """Ask, score, compare and report; goes on where an earlier try stopped."""
    from tasks.exam.evaluate import evaluate
    from tasks.exam.page.publish import publish
    from tasks.store import settings
    from tasks.store.objects import hub_store

    context = get_current_context()
    params = context["params"]
    found = evaluate(
        params["exam"],
        arm["model"],
        arm["language"],
        prompt=params["prompt"] or None,
        epochs=params["epochs"],
        limit=params["limit"],
        temperature=params["temperature"],
        max_tokens=params["max_tokens"],
        images=params["images"],
        baseline=params["baseline"] or None,
        run_id=_run_id(),
        dag_run=context["run_id"],
        progress=lambda done, total: print(f"{done} of {total} answers"),
        tell=print,
    )
    print(found.words)
    if settings.is_deployed():
        publish(found.folder, hub_store())
    asset = Asset(f"pharmafed://exams/{params['exam']}")
    context["outlet_events"][RESULTS].add(asset, extra={**arm, "run": found.run, "verdict": found.verdict})


@task(on_failure_callback=tell_of_drift)
def check_drift(arm: dict[str, str]) -> None:
    """Red when the model answers otherwise than in its last run, or than in the anchor."""
    from tasks.exam.comparing.archive import exam_run_folder
    from tasks.exam.comparing.drift import check_drift
    from tasks.store import settings

    context = get_current_context()
    exam = context["params"]["exam"]
    folder = exam_run_folder(settings.home(), exam, arm["model"], arm["language"], _run_id())
    print(check_drift(folder))


def _run_id() -> str:
    """The same in every try of this DAG run."""
    from tasks.exam.evaluate import new_run_id

    return new_run_id(get_current_context()["dag_run"].run_after)


@task_group
def one_arm(arm: dict[str, str]) -> None:
    """A model in a language."""
    evaluate(arm) >> check_drift(arm)


with DAG(
    dag_id="llm_exam",
    dag_display_name="Examination of language models",
    description="Language models sit the pharmacists' examination, every month, and are compared with themselves",
    doc_md=__doc__,
    schedule=nightly("0 2 1 * *"),
    catchup=False,
    max_active_runs=1,
    tags=["exam"],
    default_args=DEFAULTS,
    params={
        "exam": Param("practice", type="string", pattern="^[A-Za-z0-9_-]+$", title="Exam"),
        "models": Param(
            ["pharmafed/smollm2"],
            type="array",
            items={"type": "string", "pattern": r"^[A-Za-z0-9_-]+/\S+$"},
            minItems=1,
            title="Models",
        ),
        "languages": Param(
            ["en"],
            type="array",
            items={"type": "string", "enum": ["ja", "en"]},
            examples=["ja", "en"],
            minItems=1,
            title="Languages",
        ),
        "epochs": Param(1, type="integer", minimum=1, maximum=100, title="Epochs"),
        "limit": Param(None, type=["null", "integer"], minimum=1, title="Only so many items"),
        "temperature": Param(None, type=["null", "number"], minimum=0, maximum=2, title="Temperature"),
        "max_tokens": Param(None, type=["null", "integer"], minimum=1, title="Tokens of a reply"),
        "images": Param(None, type=["null", "boolean"], title="Send diagrams"),
        "prompt": Param("", type="string", pattern="^[A-Za-z0-9_-]*$", title="Prompt"),
        "baseline": Param(
            "",
            type="string",
            pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]*/(ja|en)/[A-Za-z0-9_][A-Za-z0-9._-]*)?$",
            title="Baseline run",
        ),
    },
):
    one_arm.expand(arm=plan_arms())
