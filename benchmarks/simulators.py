"""One case of the simulation benchmark, in a process of its own; leaves its figures in a JSON file.

Ours, Flower's simulation engine and NVFlare's simulator train the same models on the same arrays: at each site one
epoch of Adam with the same batches in the same order, then the average weighted by local iterations. The final
weights, which are left with the figures, show that they did. Flower and NVFlare run in other environments, so nothing
of pharmafed's `tasks` but the models is imported unless the case is one of ours.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tasks.learning.building import build_model

#: A study of ours that trains as `train` does.
STUDY = "xanomeline_nocomp24"
LR, L2, BATCH_SIZE = 0.02, 0.1, 8
WARM_UP_SITES = 13
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "logistic": ("tasks.models:LogisticRegression", {}),
    "mlp": ("tasks.models:MLP", {"hidden": 16}),
    "wide": ("tasks.models:MLP", {"hidden": 100}),
}
#: A site's arrays in the file, by the names of `tasks.data.reading.patients.Patients`.
PARTS = ("train_inputs", "train_labels", "held_out_inputs", "held_out_labels")

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Run:
    """Where each round passed the same point, in seconds of one clock; and the weights after the last."""

    marks: list[float]
    final: Weights


def num_sites(arrays: Path) -> int:
    """How many sites the file has."""
    with np.load(arrays) as file:
        return len(file.files) // len(PARTS)


def read_site(arrays: Path, site: int) -> list[torch.Tensor]:
    """The four `PARTS` of one site."""
    with np.load(arrays) as file:
        return [torch.from_numpy(file[f"{part}.{site}"]) for part in PARTS]


def new_model(name: str, arrays: Path) -> nn.Module:
    """With the initial weights that all begin with."""
    path, options = MODELS[name]
    return build_model(path, read_site(arrays, 0)[0].shape[1], options, seed=0)


def train(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, server_round: int) -> int:
    """One epoch as our sites train it, with the batches of this round under seed 0; gives its local iterations."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=L2)
    order = np.random.default_rng(server_round).permutation(len(inputs))
    batches = torch.split(torch.from_numpy(order), BATCH_SIZE)
    for rows in batches:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs[rows]), labels[rows])
        torch.autograd.backward(loss)
        optimizer.step()
    return len(batches)


def ours(model: str, rounds: int, arrays: Path) -> Run:
    """`tasks.simulation`: one process, one thread."""
    marks, final = list[float](), Weights()
    for made in _simulate(STUDY, model, num_sites(arrays), rounds, arrays):
        marks.append(time.perf_counter())
        final = made.weights
    return Run(marks, final)


def _simulate(study: str, model: str, sites: int, rounds: int, arrays: Path) -> Iterable[Any]:
    """Rounds of a study with another model over so many sites: those of the file, dealt again and again."""
    from tasks.data.reading.patients import Patients
    from tasks.privacy.noise.source import SeededNoise
    from tasks.simulation.rounds import simulate
    from tasks.simulation.runs import changed
    from tasks.store.settings import PROJECT
    from tasks.study.file import load_study

    path, options = MODELS[model]
    own = changed(load_study(PROJECT / "studies" / f"{study}.yaml"), {"model": {"path": path, "options": options}})
    known = [Patients(*read_site(arrays, site)) for site in range(num_sites(arrays))]
    patients = {f"{site:04d}": known[site % len(known)] for site in range(sites)}
    return simulate(own, patients, rounds, noise=SeededNoise(bytes(32)))


def flower(model: str, rounds: int, arrays: Path) -> Run:
    """Flower's engine on Ray: one client a core at a time, FedAvg, no evaluation."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client_app, server_app = ClientApp(), ServerApp()
    sites, marks = num_sites(arrays), list[float]()
    final = Weights()

    @client_app.train()
    def train_site(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        inputs, labels, *_ = read_site(arrays, int(context.node_config["partition-id"]))
        net = new_model(model, arrays)
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        steps = train(net, inputs, labels, int(message.content["config"]["server-round"]))
        metrics = MetricRecord({"steps": steps})
        content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
        return Message(content=content, reply_to=message)

    class Marked(FedAvg):
        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
            made = super().aggregate_train(server_round, replies)
            marks.append(time.perf_counter())
            return made

    @server_app.main()
    def serve(grid: Grid, context: Context) -> None:
        every = {"min_train_nodes": sites, "min_available_nodes": sites}
        strategy = Marked(fraction_evaluate=0.0, weighted_by_key="steps", **every)
        result = strategy.start(grid, ArrayRecord(new_model(model, arrays).state_dict()), rounds)
        final.update(result.arrays.to_torch_state_dict())

    one_core = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"include_dashboard": False}}
    run_simulation(server_app, client_app, sites, backend_config=one_core)
    return Run(marks, final)


def nvflare(model: str, rounds: int, arrays: Path) -> Run:
    """NVFlare's simulator as it comes: each client a process of its own, all at a time; FedAvg.

    The clients run `benchmarks/nvflare_client.py`, where the first of them marks when it is given each round's model.
    """
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.recipe import SimEnv

    path, options = MODELS[model]
    options = {"num_inputs": read_site(arrays, 0)[0].shape[1], **options}
    initial, folder = arrays.with_suffix(".pt"), arrays.with_suffix(".nvflare")
    torch.save(new_model(model, arrays).state_dict(), initial)  # it would draw initial weights of its own
    recipe = FedAvgRecipe(
        name="bench",
        model={"class_path": path.replace(":", "."), "args": options},
        initial_ckpt=str(initial),
        min_clients=num_sites(arrays),
        num_rounds=rounds,
        train_script=str(Path(__file__).with_name("nvflare_client.py")),
        train_args=f"{model} {arrays}",
    )
    recipe.execute(SimEnv(num_clients=num_sites(arrays), workspace_root=str(folder)))
    final = torch.load(next(folder.rglob("FL_global_model.pt")), weights_only=True)["model"]
    return Run([float(line) for line in marks_file(arrays).read_text().split()], final)


def marks_file(arrays: Path) -> Path:
    """Where NVFlare's first client puts its marks."""
    return arrays.with_suffix(".marks")


def simulate_once(simulator: str, model: str, rounds: int, arrays: Path) -> dict[str, Any]:
    """Seconds of the whole run, and between its rounds' marks."""
    run: Callable[[str, int, Path], Run] = {"ours": ours, "flower": flower, "nvflare": nvflare}[simulator]
    began = time.perf_counter()
    made = run(model, rounds, arrays)
    seconds = time.perf_counter() - began
    if len(made.marks) != rounds:
        raise RuntimeError(f"{simulator} ran {len(made.marks)} rounds of {rounds}")
    final = {name: np.asarray(value).tolist() for name, value in made.final.items()}
    return {"seconds": seconds, "rounds": np.diff(made.marks).tolist(), "final": final}


def simulate_sites(study: str, sites: int, rounds: int, arrays: Path) -> dict[str, Any]:
    """Seconds of a round with so many sites; the peak is beyond what the process held before, the arrays included."""
    from benchmarks.average import _forget_peak, _memory

    list(_simulate(study, "wide", WARM_UP_SITES, 1, arrays))
    run = _simulate(study, "wide", sites, rounds, arrays)
    _forget_peak()
    before, began = _memory("VmRSS"), time.perf_counter()
    for _ in run:
        pass
    return {"seconds": (time.perf_counter() - began) / rounds, "peak_bytes": _memory("VmHWM") - before}


def main(case: str, what: str, rounds: int, arrays: Path, out: Path) -> None:
    """`case` is a simulator and `what` a model, or a number of sites and a study."""
    torch.set_num_threads(1)
    if case.isdigit():
        measured = simulate_sites(what, int(case), rounds, arrays)
    else:
        measured = simulate_once(case, what, rounds, arrays)
    out.write_text(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
