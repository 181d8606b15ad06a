"""Synthetic tasks by name: what a model can do with its context, which text teaches slowly.

Here are their names and meanings alone; `hybrid_nas.tasks.known` draws them, with numpy.
"""

NAMES: dict[str, str] = {
    "in_context_recall": "values of keys that came before in the sequence (MAD)",
    "fuzzy_recall": "the same with keys and values of several symbols (MAD)",
    "noisy_recall": "the same with noise between the pairs (MAD)",
    "selective_copying": "symbols strewn among blanks, given back in order (MAD)",
    "compression": "a string given back by places in random order (MAD)",
    "memorization": "values of a dictionary that no sequence explains (MAD)",
    "mqar": "multi-query associative recall (Zoology)",
    "induction": "the symbol that followed this one last time",
    "passkey": "a key hidden in a repeated phrase, given back at the end",
    "needle": "a key hidden in held-out text, given back at the end",
    "repeat": "a piece of the text over and over",
}
MAD = ("in_context_recall", "fuzzy_recall", "noisy_recall", "selective_copying", "compression", "memorization")
BEYOND = "beyond"
"""Not a task but a probe: the loss on text past the training length, by position."""
AR_HITS = "ar_hits"
"""Another: the loss on text where a rare n-gram of the context stands again."""
OF_TEXT = (BEYOND, AR_HITS)


def base(name: str) -> str:
    """The name without sizes.

    >>> base("mqar(pairs=16)")
    'mqar'
    """
    return name.partition("(")[0].strip()


def value_name(name: str, among: tuple[str, ...]) -> str:
    """What a trial calls the score: the task's name, with its sizes where `among` has it at several.

    >>> value_name("mqar(pairs=16)", ("mqar(pairs=16)", "induction"))
    'mqar'
    """
    return base(name) if sum(base(other) == base(name) for other in among) == 1 else name


def measures(quantity: str, names: tuple[str, ...]) -> bool:
    """Whether a budget with these tasks and probes gives a trial the value `quantity` (`score`: any task)."""
    if quantity == "score":
        return any(base(name) not in OF_TEXT for name in names)
    return [base(name) for name in names].count(quantity) == 1
