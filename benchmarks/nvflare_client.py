"""What a client of NVFlare's simulator runs: `nvflare_client.py MODEL ARRAYS`; see `benchmarks.simulators`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nvflare.client as flare
import torch

from benchmarks.simulators import marks_file, new_model, read_site, train


def main(name: str, arrays: Path) -> None:
    """Train for as many rounds as the server asks for."""
    torch.set_num_threads(1)
    flare.init()
    site = int(flare.get_site_name().removeprefix("site-")) - 1
    inputs, labels, *_ = read_site(arrays, site)
    model = new_model(name, arrays)
    while flare.is_running():
        received = flare.receive()
        if site == 0:
            _mark(arrays)
        model.load_state_dict({key: torch.as_tensor(value) for key, value in received.params.items()})
        steps = train(model, inputs, labels, received.current_round + 1)
        flare.send(flare.FLModel(params=model.state_dict(), meta={"NUM_STEPS_CURRENT_ROUND": steps}))


def _mark(arrays: Path) -> None:
    with marks_file(arrays).open("a") as file:
        file.write(f"{time.perf_counter()}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
