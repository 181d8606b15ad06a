"""Tasks in a training and a study: which batches are drawn, what is scored, and what a study file may ask for."""

import numpy as np
import pytest
import torch

from hybrid_nas.aggregate import scored
from hybrid_nas.budget import Budget
from hybrid_nas.data import Text
from hybrid_nas.proxy import Proxy
from hybrid_nas.study_file import read_study
from hybrid_nas.table_file import proposals
from hybrid_nas.tasks import MAD, base
from hybrid_nas.tasks.known import TASKS, task_named
from hybrid_nas.trial import Trial
from hybrid_nas.yaml_file import FileError


class Oracle(torch.nn.Module):
    """Gives the byte that follows in what it was shown, with logits of `sure`; wrong where `wrong` says."""

    def __init__(self, vocab=256, sure=9.0):
        super().__init__()
        self.vocab, self.sure, self.seen = vocab, sure, []

    def forward(self, tokens):
        self.seen.append(tokens)
        guess = torch.full((*tokens.shape, self.vocab), 0.0)
        for row in range(len(tokens)):
            last: dict[int, int] = {}
            for place, symbol in enumerate(tokens[row].tolist()):
                if place:
                    last[int(tokens[row, place - 1])] = symbol
                if symbol in last:
                    guess[row, place, last[symbol]] = self.sure
        return guess


def test_scores_of_a_model_that_can_look_back_and_beyond_the_length():
    data = np.random.default_rng(0).integers(97, 123, 60_000).astype(np.uint8)
    text = Text("t", data, data[:9000], "")
    budget = Budget(
        tokens=4096, batch=4, validation_tokens=2048, tasks=("induction", "mqar(pairs=4)"),
        probes=("passkey(times=2)", "needle", "memorization", "beyond(times=2)"),
    )  # fmt: skip
    proxy, model = Proxy(text, 64, budget, 0), Oracle()
    scores = proxy.scores(model, torch.device("cpu"))
    assert {"induction", "mqar", "passkey", "needle", "memorization", "score", "beyond"} < set(scores)
    assert scores["induction"] == scores["mqar"] == 1.0
    came_before = np.mean([1 - (1 - 1 / 64) ** pair for pair in range(32)])  # of 64 keys
    assert scores["memorization"] == pytest.approx(came_before, abs=0.06)
    names = ("induction", "mqar", "passkey", "needle", "memorization")
    assert scores["score"] == pytest.approx(np.mean([scores[name] for name in names]))
    certain = np.log(1 + 255 * np.exp(-9.0))
    assert scores["induction_loss"] == pytest.approx(certain, rel=1e-4)
    assert {tokens.shape[1] for tokens in model.seen} == {64, 128}
    # By position: the mean of the quarters past the length is the loss beyond it.
    quarters = [scores[f"loss_at_{q:g}"] for q in (1.25, 1.5, 1.75, 2)]
    assert scores["beyond"] == pytest.approx(np.mean(quarters))
    batch = proxy.batch(0)
    assert len(batch.recall) == 2
    assert set(batch.recall[0].tolist()) != set(batch.recall[1].tolist())


def test_a_study_names_tasks_as_objectives():
    space = "name: s\nratio: [1:1, 0:1]\nobjectives: [induction, cache_bytes]\n"
    with pytest.raises(ValueError, match="nothing measures induction; name it once under budget: tasks or probes"):
        read_study(space, "s.yaml")
    file = read_study(space + "budget: {tasks: [induction, mqar]}\n", "s.yaml")
    assert next((o.name, o.direction, o.trained) for o in file.objectives) == ("induction", "maximize", True)
    assert read_study(space + "budget: {probes: [induction(longest=16)]}\n", "s.yaml").budget.probes
    with pytest.raises(ValueError, match="budget: tasks: unknown task 'induktion'; did you mean induction"):
        read_study(space + "budget: {tasks: [induktion]}\n", "s.yaml")
    assert base("mqar(pairs=16)") == "mqar"


def drawn_as_before(proxy, step):
    """The recall sequences of a batch by the rule that recorded studies were trained under: equal parts, the first
    tasks one more; what has no part is left out."""
    count, names = proxy.recall_sequences, proxy.budget.tasks
    generator = np.random.default_rng([0x7265_6361, proxy.seed, step])
    parts = [count // len(names) + (i < count % len(names)) for i in range(len(names))]
    rows = []
    for name, part in zip(names, parts, strict=True):
        if part:
            task, filling = task_named(name), None
            if task.of_text:
                filling = proxy.text.batch(int(generator.integers(2**31)), 0, part, proxy.context + 1)
            rows.append(task.draw(part, proxy.context + 1, generator, filling))
    return np.concatenate([tokens for tokens, _ in rows]), np.concatenate([scored for _, scored in rows])


@pytest.fixture
def letters():
    data = np.random.default_rng(0).integers(97, 123, 60_000).astype(np.uint8)
    return Text("t", data, data[:9000], "")


@pytest.mark.parametrize("tasks", [("mqar(pairs=4)",), ("induction", "needle", "mqar(pairs=4)"), MAD[:4]])
def test_with_enough_sequences_batches_are_those_of_recorded_studies(letters, tasks):
    proxy = Proxy(letters, 64, Budget(batch=8, tasks=tasks), 5)
    for step in (0, 1, 7):
        tokens, scored = drawn_as_before(proxy, step)
        batch = proxy.batch(step)
        assert np.array_equal(batch.recall.numpy(), tokens)
        assert np.array_equal(batch.scored.numpy(), scored[:, 1:])


def test_tasks_take_turns_where_a_batch_has_fewer_sequences(letters, monkeypatch):
    """Four sequences a batch for eleven tasks: over eleven batches each is drawn four times, whatever the budget."""
    names = (*sorted(TASKS.keys() - {"mqar"}), "mqar(pairs=4)")
    told = []
    of = Proxy._drawn
    monkeypatch.setattr(
        Proxy, "_drawn", lambda self, name, n, *rest: told.append((name, n)) or of(self, name, n, *rest)
    )
    proxy = Proxy(letters, 128, Budget(batch=8, tasks=names, tokens=11 * 8 * 128, validation_tokens=256), 0)
    for step in range(11):
        assert len(proxy.batch(step).recall) == 4
    assert sorted(told) == sorted((name, 1) for name in names * 4)
    assert np.array_equal(proxy.batch(0).recall.numpy(), drawn_as_before(proxy, 0)[0])
    longer = Proxy(letters, 128, Budget(batch=8, tasks=names, tokens=10**6), 0)
    assert torch.equal(proxy.batch(9).tokens, longer.batch(9).tokens)
    told.clear()
    proxy.recall(Oracle(), torch.device("cpu"))  # one sequence would do for so few held-out tokens
    assert sorted(told) == sorted((name, 1) for name in names)
    with pytest.raises(ValueError, match="tasks: 11 tasks need as many recall sequences or more, found 8: of 8 sequ"):
        Proxy(letters, 128, Budget(batch=8, tasks=names, tokens=2 * 8 * 128), 0)


def test_a_batch_always_asks_for_something(letters):
    """Of single sequences of this task one in seven repeats no key; the others are drawn as before."""
    proxy = Proxy(letters, 64, Budget(batch=2, tasks=("fuzzy_recall(vocab=128)",)), 0)
    empty = [step for step in range(40) if not drawn_as_before(proxy, step)[1][:, 1:].any()]
    assert empty
    for step in range(40):
        batch = proxy.batch(step)
        assert batch.scored.any()
        assert (step in empty) != np.array_equal(batch.recall.numpy(), drawn_as_before(proxy, step)[0])
    with pytest.raises(ValueError, match="nothing was asked for in 100 draws of 5 tokens"):
        Proxy(letters, 4, Budget(batch=2, tasks=("in_context_recall(vocab=100000)",)), 0).batch(0)


NEVER_TRAINED = [
    ("proxy: quick\nbudget:\n  tasks: [mqar]", "s.yaml:5: tasks: recall_share is 0, .* mqar; raise .* name it under"),
    ("budget:\n  recall_share: 0\n  tasks: [mqar, induction]", "s.yaml:5: .* on mqar, induction; .* name them under"),
    (
        "budget:\n  tokens: 600\n  tasks: [mqar, induction, repeat, needle, passkey]",
        "s.yaml:5: tasks: 5 tasks .* found 4",
    ),
    (
        "budget: {flops: 2.3e9, tasks: [mqar, induction, repeat, needle, passkey]}",
        "s.yaml:3: tasks: 5 tasks .* found 4",
    ),
    ("budget: {batch: 1, tasks: [mqar]}", "s.yaml:3: budget: a batch of 1 cannot hold text and recall"),
    (
        "budget:\n  tasks: [mqar, noisy_recall(vocab=32, noise=0.4)]",
        r's.yaml:4: tasks: found .*: in a YAML list .* in quotes, "noisy_recall\(vocab=32, noise=0.4\)"$',
    ),
    ("budget: {probes: [ar_hits(ngram=3, rarest=5), mqar]}", r'quotes, "ar_hits\(ngram=3, rarest=5\)"$'),
    ("budget: {tasks: [mqar(pairs=4, induction]}", r"the parenthesis of 'mqar\(pairs=4' is left open"),
    ("budget: {tasks: [mqar(pairs=4, induction(longest=9)]}", r"the parenthesis of 'mqar\(pairs=4' is left open"),
]


@pytest.mark.parametrize(("lines", "told"), NEVER_TRAINED)
def test_a_study_whose_tasks_would_not_be_trained_on_is_refused(lines, told):
    with pytest.raises(FileError, match=told):
        read_study(f"name: s\nratio: [1:1]\n{lines}\n", "s.yaml")


def test_two_sizes_in_quotes_and_tasks_of_a_named_proxy_with_a_share():
    told = 'budget: {tasks: ["noisy_recall(vocab=32, noise=0.4)"], probes: ["ar_hits(ngram=3, rarest=5)"]}'
    budget = read_study(f"name: s\nratio: [1:1]\n{told}\n", "s.yaml").budget
    assert (budget.tasks, budget.probes) == (("noisy_recall(vocab=32, noise=0.4)",), ("ar_hits(ngram=3, rarest=5)",))
    wanted = "name: s\nratio: [1:1]\nproxy: quick\nbudget: {tasks: [mqar], recall_share: 0.25}\n"
    assert read_study(wanted, "s.yaml").budget.recall_sequences() == 2


def test_proxies_by_name():
    quick, thorough = (
        read_study(f"name: s\nratio: [1:1]\nproxy: {name}\n", "s.yaml") for name in ("quick", "thorough")
    )
    assert quick.proxy == thorough.proxy
    assert quick.budget.tokens < thorough.budget.tokens
    changed = read_study("name: s\nratio: [1:1]\nproxy: {preset: quick, context: 128}\nbudget: {batch: 4}\n", "s.yaml")
    assert (changed.proxy.context, changed.budget.batch, changed.budget.probes) == (128, 4, quick.budget.probes)
    # As deep as the paper's models of 1B.
    depths = {"1:0": 16, "1:1": 14, "1:3": 13, "0:1": 13}
    for ratio, depth in depths.items():
        (design,) = read_study(f"name: s\nratio: [{ratio}]\nproxy: quick\n", "s.yaml").space.enumerate()
        assert design.at(quick.proxy).depth == depth
    with pytest.raises(ValueError, match="proxy: unknown scale qick; did you mean 'quick'"):
        read_study("name: s\nratio: [1:1]\nproxy: qick\n", "s.yaml")


def test_scores_of_a_table_by_rank_and_z():
    file = read_study("name: s\nratio: [1:1, 1:3, 0:1]\nproxy: quick\n", "s.yaml")
    every = proposals([file], None)
    values = [{"loss": 1.5, "mqar": 0.9}, {"loss": 1.2, "mqar": 0.1}, {"loss": 1.3, "mqar": 0.9}]

    def table(how):
        budget = Budget(tasks=("mqar(pairs=4)",), aggregate=how)
        trials = [
            Trial(i, "complete", p.design, p.proxy, p.target, p.cost, budget, 0, values={**v, "score": v["mqar"]})
            for i, (p, v) in enumerate(zip(every, values, strict=True))
        ]
        broken = trials[0].with_changes(number=3, state="failed", values={})
        return [t.values.get("score") for t in scored([*trials, broken])]

    assert table("mean") == [0.9, 0.1, 0.9, None]
    assert table("rank") == [(0.0 + 0.75) / 2, (1.0 + 0.0) / 2, (0.5 + 0.75) / 2, None]
    loss, recall = -np.array([1.5, 1.2, 1.3]), np.array([0.9, 0.1, 0.9])
    z = ((loss - loss.mean()) / loss.std() + (recall - recall.mean()) / recall.std()) / 2
    assert table("z-score")[:3] == pytest.approx(list(z))
    with pytest.raises(ValueError, match="score by rank compares designs of a whole table"):
        read_study("name: s\nratio: [1:1]\nobjectives: [score, params]\nproxy: {preset: quick, aggregate: rank}\n", "s")
