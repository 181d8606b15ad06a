"""The plain trainer: it trains as a proxy does, resumes bit for bit, and on two processes gives what one gives."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from installed import COMMAND, environment
from scipy.stats import kendalltau

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.budget import Budget
from hybrid_nas.data import Corpus, open_corpus
from hybrid_nas.model import build
from hybrid_nas.proxy import Proxy
from hybrid_nas.proxy import train as train_proxy
from hybrid_nas.trainer import Place, Recipe, Trainer, trained

Command = Callable[..., subprocess.CompletedProcess[str]]
SMALL = Architecture(
    32, 256, (Block(Mamba2(64, 16, 8), SwiGLU(48)), Block(Attention(heads=4, kv_heads=2, head_dim=8), SwiGLU(48)))
)
BUDGET = Budget(tokens=64 * 8 * 12, batch=8, recall_symbols=8, validation_tokens=1024, rungs=(0.5,))
RECIPE = Recipe(SMALL, 64, BUDGET, seed=3)
HERE = Place(0, 1, torch.device("cpu"))


def test_it_trains_as_a_proxy_does(tmp_path: Path) -> None:
    """The same steps, losses and weights, to the last bit, as the training that a search trusts."""
    rows = list(Trainer(RECIPE, tmp_path / "run", HERE).run(every=100))
    model = build(SMALL, generator=3)
    proxy = Proxy(open_corpus(Corpus()), 64, BUDGET, 3)
    steps = list(train_proxy(model, SMALL, proxy, torch.device("cpu")))
    assert [row.loss for row in rows] == [step.loss for step in steps]
    assert [row.tokens for row in rows] == [step.tokens for step in steps]
    assert [row.held_out for row in rows if row.held_out] == [steps[5].held_out, proxy.loss(model, torch.device("cpu"))]
    for name, value in trained(tmp_path / "run").state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert rows[-1].held_out < rows[5].held_out < 5.5
    about = json.loads((tmp_path / "run/train.json").read_text())
    assert (about["steps"], about["processes"], about["recipe"]["seed"]) == (12, 1, 3)


def test_a_resumed_run_is_the_unbroken_one(tmp_path: Path) -> None:
    whole = list(Trainer(RECIPE, tmp_path / "whole", HERE).run(every=100))
    list(Trainer(RECIPE, tmp_path / "broken", HERE).run(every=4, stop_at=6))
    (tmp_path / "broken/checkpoints/6.pt").unlink()  # as if killed between two checkpoints, at step 6
    again = Trainer(RECIPE, tmp_path / "broken", HERE)
    rest = list(again.run(every=4))
    assert [row.step for row in rest] == list(range(5, 13))
    assert [row.loss for row in again.log()] == [row.loss for row in whole]
    assert [path.stem for path in again.checkpoints()] == ["8", "12"]  # the last two are kept
    one, other = trained(tmp_path / "whole").state_dict(), trained(tmp_path / "broken").state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert list(Trainer(RECIPE, tmp_path / "broken", HERE).run(every=4)) == []


def test_a_folder_belongs_to_one_training(tmp_path: Path) -> None:
    list(Trainer(RECIPE, tmp_path, HERE).run(every=4, stop_at=1))
    other = Recipe(SMALL, 64, BUDGET, seed=4)
    with pytest.raises(ValueError, match=r"holds another training \(seed 3 there and 4 here\); give another --out"):
        next(Trainer(other, tmp_path, HERE).run(every=4))
    with pytest.raises(ValueError, match="neither empty nor a training's folder"):
        next(Trainer(RECIPE, tmp_path / "checkpoints", HERE).run(every=4))


class Harm:
    def __reduce__(self) -> tuple:
        return (print, ("this must not run",))


def test_a_checkpoint_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    trainer = Trainer(RECIPE, tmp_path / "run", HERE)
    path = tmp_path / "1.pt"
    torch.save({"step": 1, "model": Harm(), "optimizer": {}}, path)
    with pytest.raises(Exception, match="Weights only load failed"):
        trainer.load(path)
    assert capsys.readouterr().out == ""


def test_a_batch_must_divide(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 sequences of text do not divide among 3 processes; a batch of 24 does"):
        Trainer(RECIPE, tmp_path, Place(0, 3, torch.device("cpu")))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_give_what_one_gives(parallel: str, nas: Command, tmp_path: Path) -> None:
    layout = ("--layout", "MAM", "--set", "d_state=8", "--scale", "proxy", "--context", "64")
    options = ("--tokens", "8k", "--batch", "8", "--checkpoint-every", "8", "--seed", "5")
    nas("train", *layout, *options, "--out", "one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", COMMAND]
    done = subprocess.run(
        [*torchrun, "train", *layout, *options, "--parallel", parallel, "--out", "two"],
        cwd=tmp_path,
        env={**environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "two/train.json").read_text())["processes"] == 2
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    assert len(losses[0]) == 16
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    one, two = (trained(tmp_path / run).state_dict() for run in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-4)


def test_an_unfinished_training_says_so_everywhere(nas: Command, tmp_path: Path) -> None:
    """Where the same command continues, what an export has of it, and what is less than a step."""
    asked = ("train", "--layout", "M", "--scale", "proxy", "--tokens", "64", "--batch", "1", "--context", "16")
    asked = (*asked, "--out", "run", "--checkpoint-every", "2")
    assert "4 steps of 1 x 16 tokens on 1 cpu process of 1 thread (--threads)" in nas(*asked).stdout
    (tmp_path / "run/checkpoints/4.pt").unlink()
    done = json.loads(nas("export", "run", "--to", "hybrid", "--weights", "--out", "a", "--json").stdout)
    assert "trained for 2 of 4 steps so far" in done["differs"]
    assert "continues at step 2 of 4" in nas(*asked, "--threads", "2").stdout
    done = json.loads(nas("export", "run", "--to", "hybrid", "--weights", "--out", "b", "--json").stdout)
    assert not [note for note in done["differs"] if "so far" in note]
    refused = nas("train", "--layout", "M", "--tokens", "1k", "--batch", "1000", "--out", "none", check=2).stderr
    assert "are less than one step, 1000 sequences of 8,192 tokens, which is 8,192,000" in refused
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_from_a_trial_to_trained_weights_in_a_trainers_format(nas: Command, tiny: Path, tmp_path: Path) -> None:
    """search, confirm, train, export: the whole way by the command."""
    nas("search", tiny, "--out", "run", "--set", "proxy.replicates=0")
    shown = json.loads(nas("front", "run", "--json").stdout)
    first = json.loads(nas("confirm", "run", "--tokens", "2k", "--also", "9", "--json").stdout)
    assert first == json.loads((tmp_path / "run/confirm.json").read_text())
    assert {row["number"] for row in first["designs"]} >= {member["number"] for member in shown["members"]}
    pairs = [(row["before"], row["mean"]) for row in first["designs"]]
    assert first["kendall_tau"]["value"] == pytest.approx(kendalltau(*zip(*pairs, strict=True)).statistic)
    assert first["kendall_tau"]["n"] == len(pairs)
    begun = (tmp_path / "run/confirm_trainings.json").read_bytes()
    text = nas("confirm", "run", "--tokens", "2k", "--also", "9").stdout
    assert "0 trainings of 2,000 tokens" in text
    assert "Kendall's tau between the two orders" in text
    assert (tmp_path / "run/confirm_trainings.json").read_bytes() == begun
    assert "more than the 1,024 of the study's trainings" in nas("confirm", "run", "--tokens", "1k", check=2).stderr
    assert {(row["tokens_before"], row["tokens"]) for row in first["designs"]} == {(1024, 1984)}
    assert first["flops"] is None

    number = shown["members"][0]["number"]
    nas("train", f"run#{number}", "--scale", "proxy", "--tokens", "4k", "--out", "trained")
    recipe = json.loads((tmp_path / "trained/train.json").read_text())["recipe"]
    assert recipe["budget"]["recall_share"] == json.loads(json.dumps(Budget().recall_share))
    picture = (tmp_path / "trained/loss.svg").read_text()
    assert picture.startswith("<svg")
    assert f"run#{number}" in picture
    nas("export", "trained", "--to", "hybrid", "--weights", "--out", "handed")
    from safetensors.torch import load_file

    handed, ours = load_file(tmp_path / "handed/model.safetensors"), trained(tmp_path / "trained")
    torch.testing.assert_close(handed["model.embed_tokens.weight"], ours.embedding.data, rtol=0, atol=0)
    assert not torch.equal(ours.embedding, build(ours.architecture, generator=0).embedding)
