"""Each task against a reader of its own that solves it from the description, symbol by symbol."""

import numpy as np
import pytest
import torch

from hybrid_nas.aggregate import scored
from hybrid_nas.budget import Budget
from hybrid_nas.data import Text
from hybrid_nas.proxy import Proxy
from hybrid_nas.study_file import read_study
from hybrid_nas.table_file import proposals
from hybrid_nas.tasks import MAD, NAMES, base
from hybrid_nas.tasks.known import MAD_SIZES, TASKS, probe_named, task_named
from hybrid_nas.tasks.long_range import MARK
from hybrid_nas.tasks.sequences import FIRST
from hybrid_nas.trial import Trial
from hybrid_nas.yaml_file import FileError

LENGTH = 96


def drawn(name, sequences=24, tokens=LENGTH, seed=0, **changes):
    return task_named(name).draw(sequences, tokens, np.random.default_rng(seed), **changes)


def solved(read, name, **sizes):
    """`read(row, place)` must give every scored symbol from those before; returns the share of symbols scored."""
    tokens, scored = drawn(name, **sizes)
    for row, marks in zip(tokens, scored, strict=True):
        for place in np.flatnonzero(marks):
            assert read(list(row[:place])) == row[place], (name, list(row), place)
    return scored.mean()


def last_after(before, least=1):
    """What followed the last occurrence of the last symbol."""
    for place in range(len(before) - 2, -1, -1):
        if before[place] == before[-1]:
            return before[place + 1]
    return None


def test_names_and_functions_are_the_same_set():
    assert set(NAMES) == set(TASKS)
    assert set(MAD_SIZES) == set(MAD)
    for settings in MAD_SIZES.values():
        for name in settings:
            tokens, scored = drawn(name, 2, 256)
            assert tokens.shape == scored.shape == (2, 256)
            assert 0 <= tokens.min() <= tokens.max() < 512
            assert scored.any()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_each_docstring_draws_an_example_whose_marks_stand_under_symbols(name):
    lines = [line.strip() for line in (TASKS[name].function.__doc__ or "").splitlines()]
    (first, *_) = [i for i, line in enumerate(lines) if line.startswith("tokens ")]
    assert lines[first + 1].startswith("scored ")
    symbols, marks = (
        line.removeprefix(word)[3:] for line, word in zip(lines[first:], ("tokens", "scored"), strict=False)
    )
    row, scored = symbols[::2], [place // 2 for place, mark in enumerate(marks) if mark == "^"]
    assert scored
    assert all(row[place].strip() for place in scored)
    if name in ("in_context_recall", "noisy_recall", "mqar", "induction"):
        assert all(last_after(row[:place]) == row[place] for place in scored)


@pytest.mark.parametrize("name", sorted(name for name, task in TASKS.items() if not task.of_text))
def test_a_seed_gives_the_same_sequences_and_another_gives_others(name):
    one, again, other = (drawn(name, seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.min() >= FIRST


@pytest.mark.parametrize("name", ["in_context_recall(vocab=16)", "in_context_recall(vocab=32)", "induction", "mqar"])
def test_what_followed_the_same_symbol_solves_them(name):
    assert solved(last_after, name) > 0.05


def test_in_context_recall_scores_a_value_only_where_its_key_came_before():
    tokens, scored = drawn("in_context_recall(vocab=32)")
    for row, marks in zip(tokens, scored, strict=True):
        for place in range(1, LENGTH, 2):
            assert marks[place] == (row[place - 1] in row[: place - 1 : 2])
        assert not marks[0::2].any()


def test_noisy_recall_is_in_context_recall_once_the_noise_is_taken_out():
    tokens, scored = drawn("noisy_recall(noise=0.4)")
    noise = tokens >= FIRST + 16
    assert 0.2 < noise.mean() < 0.4  # noise falls between pairs, and a pair takes two places
    assert not (noise & scored).any()
    for row, marks, out in zip(tokens, scored, noise, strict=True):
        kept, kept_marks = row[~out], marks[~out]
        for place in np.flatnonzero(kept_marks):
            assert last_after(list(kept[:place])) == kept[place]


def test_fuzzy_recall_is_known_from_all_symbols_of_a_key():
    """A key is a motif; the longest stretch that came before tells what follows it."""
    tokens, scored = drawn("fuzzy_recall", tokens=160)
    right = total = 0
    for row, marks in zip(tokens, scored, strict=True):
        for place in np.flatnonzero(marks):
            before, best, guess = list(row[:place]), 0, None
            for start in range(1, place):
                length = 0
                while length < start and before[start - 1 - length] == before[place - 1 - length]:
                    length += 1
                if length > best:
                    best, guess = length, before[start]
            right += guess == row[place]
            total += 1
    assert right / total > 0.9  # a value's symbol may itself be the beginning of two values
    assert total > 200


def test_selective_copying_gives_the_symbols_back_in_order():
    tokens, scored = drawn("selective_copying(copied=12)")
    blank, mark = FIRST + 14, FIRST + 15
    for row, marks in zip(tokens, scored, strict=True):
        symbols = [s for s in row[: LENGTH - 13] if s != blank]
        assert len(symbols) == 12
        assert row[LENGTH - 13] == mark
        assert list(row[LENGTH - 12 :]) == symbols
        assert list(np.flatnonzero(marks)) == list(range(LENGTH - 12, LENGTH))


def test_compression_asks_for_every_place_once():
    def read(before):
        length = (LENGTH - 1) // 3
        return before[before[-1] - (FIRST + 16 + 1)] if before[length] == FIRST + 16 else None

    assert solved(read, "compression") == pytest.approx(((LENGTH - 1) // 3) / LENGTH)


def test_memorization_has_one_dictionary_for_all_seeds():
    table = {}
    for seed in (0, 1, 2):
        tokens, scored = drawn("memorization", seed=seed)
        assert scored[:, 1::2].all()
        assert not scored[:, 0::2].any()
        for row in tokens:
            for key, value in zip(row[0::2], row[1::2], strict=True):
                assert table.setdefault(key, value) == value
    assert len(table) == 64


def test_mqar_asks_each_key_once_after_all_pairs():
    tokens, scored = drawn("mqar(pairs=6)")
    for row, marks in zip(tokens, scored, strict=True):
        pairs = {row[i]: row[i + 1] for i in range(0, 12, 2)}
        assert len(pairs) == 6
        asked = [row[place - 1] for place in np.flatnonzero(marks)]
        assert sorted(asked) == sorted(pairs)
        assert all(place >= 12 and pairs[row[place - 1]] == row[place] for place in np.flatnonzero(marks))


def test_induction_cannot_be_solved_by_place():
    tokens, scored = drawn("induction(longest=32)", sequences=200)
    first = scored.argmax(1)
    assert (first.min(), first.max()) == (9, 33)
    for distance in range(1, 40):
        hits = tokens[:, distance:] == tokens[:, :-distance]
        assert hits[scored[:, distance:]].mean() < 0.2


@pytest.mark.parametrize(("name", "filling"), [("passkey", None), ("needle", np.arange(5 * 300).reshape(5, 300) % 128)])
def test_a_hidden_key_stands_once_before_it_is_asked_for(name, filling):
    tokens, scored = drawn(name, filling=filling) if filling is not None else drawn(name)
    depths = set()
    for row, marks in zip(tokens, scored, strict=True):
        places = np.flatnonzero(row == MARK)
        assert len(places) == 2
        assert list(row[places[0] + 1 : places[0] + 6]) == list(row[places[1] + 1 :])
        assert list(np.flatnonzero(marks)) == list(range(LENGTH - 5, LENGTH))
        depths.add(int(places[0]))
        if filling is not None:
            assert list(row[: places[0]]) in [list(line[: places[0]]) for line in filling]
    assert len(depths) > 10


@pytest.mark.parametrize(("name", "shortest"), [("repeat", 32), ("repeat(shortest=5)", 5)])
def test_repeated_text_is_text_once_and_then_that_which_stood_there_before(name, shortest):
    filling = np.arange(300) + 1000 * np.arange(90)[:, None]
    tokens, scored = drawn(name, 90, filling=filling)
    periods = (~scored).sum(1)
    for row, line, period in zip(tokens, filling, periods, strict=True):
        first = list(line[:period])
        assert list(row) == (first * LENGTH)[:LENGTH]
    assert periods.min() in range(shortest, shortest + 8)
    assert periods.max() in range(LENGTH // 2 - 8, LENGTH // 2 + 1)
    assert len(set(periods)) > 10, "no place tells by itself what comes"
    assert not np.array_equal(tokens, drawn(name, 90, filling=filling, seed=1)[0])
    with pytest.raises(ValueError, match=f"needs at least {2 * shortest} tokens for a piece of {shortest} twice"):
        drawn(name, tokens=2 * shortest - 1, filling=filling)
    with pytest.raises(ValueError, match="repeat: needs at least 1 token a piece, found 0"):
        drawn("repeat(shortest=0)", filling=filling)
    with pytest.raises(ValueError, match=r"repeat: sequences of 301 tokens need as much text each, found \(90, 300\)"):
        drawn(name, tokens=301, filling=filling)


def test_names_with_sizes_and_wrong_ones():
    assert task_named("passkey(times=2)").tokens(128) == 256
    assert probe_named("beyond").tokens(128) == 256
    for name, said in (
        ("inductoin", "unknown task 'inductoin'; did you mean induction"),
        ("mqar(pears=3)", "its sizes are pairs, times"),
        ("passkey(times=9)", "times must lie above 0 and up to 4, found 9"),
    ):
        with pytest.raises(ValueError, match=said):
            task_named(name)
    with pytest.raises(ValueError, match="times must lie above 1"):
        probe_named("beyond(times=1)")
    for name in ("beyond", "ar_hits(ngram=3)"):
        with pytest.raises(ValueError, match=r"budget: tasks: unknown task '.*'; it is a probe.* name it under probes"):
            Budget(tasks=(name,))
    with pytest.raises(ValueError, match="each once"):
        Budget(tasks=("mqar",), probes=("mqar",))
    with pytest.raises(ValueError, match="needs at least 64 tokens for 16 pairs"):
        drawn("mqar(pairs=16)", tokens=32)


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
