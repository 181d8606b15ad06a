"""lm-eval's loader on our custom model, where lm-eval is installed: its likelihoods and its generation are ours."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import ATTENTION, MAMBA, WINDOW, model_of, stack, written

from hybrid_nas.export.formats import FORMATS
from hybrid_nas.model import Model

ASKED = [("def f(x):", " return x"), ("import", " os"), ("The state of the", "art")]
PROMPTS = ["def f(", "import numpy as"]
LOADED = """
import json, sys
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

asked, prompts = json.loads(sys.argv[2])
model = HFLM(pretrained=sys.argv[1], trust_remote_code=True, device="cpu", batch_size=2, max_length=128)
scored = model.loglikelihood([Instance("loglikelihood", {}, tuple(pair), i) for i, pair in enumerate(asked)])
until = {"until": ["~~~~"], "max_gen_toks": 8, "do_sample": False}
written = model.generate_until([Instance("generate_until", {}, (p, until), i) for i, p in enumerate(prompts)])
print(json.dumps([[value for value, _ in scored], written]))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lm_eval", "accelerate", "peft")),
    reason="lm-eval is not here with its loader's needs",
)
def test_lm_eval_scores_and_generates_as_we_do(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ours = model_of(replace(stack(MAMBA, ATTENTION, WINDOW), vocab=len(alphabet)))
    greedy = {prompt: continuation(ours, tokenizer.encode(prompt).ids) for prompt in PROMPTS}
    unused = [letter for i, letter in enumerate(alphabet) if not any(i in tokens for tokens in greedy.values())]
    folder = written(FORMATS["hybrid"], ours, tmp_path / "model")
    saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=unused[0], pad_token=unused[1])
    saved.save_pretrained(folder)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADED, str(folder), json.dumps([ASKED, PROMPTS])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scores, generated = json.loads(done.stdout.splitlines()[-1])
    for (context, rest), score in zip(ASKED, scores, strict=True):
        tokens = torch.tensor([tokenizer.encode(context + rest).ids])
        begin = len(tokenizer.encode(context).ids)
        with torch.no_grad():
            likelihood = ours(tokens[:, :-1]).log_softmax(-1)[0].gather(-1, tokens[0, 1:, None])
        assert score == pytest.approx(likelihood[begin - 1 :].sum().item(), abs=1e-3)
    assert generated == [tokenizer.decode(greedy[prompt]) for prompt in PROMPTS]


def continuation(model: Model, tokens: list[int]) -> list[int]:
    """Eight tokens, each the likeliest, by our own decoding."""
    cache, chosen = model.cache(1, 64), []
    for token in tokens:
        logits = model.step(torch.tensor([token]), cache)
    for _ in range(8):
        chosen.append(int(logits.argmax()))
        logits = model.step(logits.argmax(-1), cache)
    return chosen
