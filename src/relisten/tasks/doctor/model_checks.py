"""Do a model and its tokenizer belong together, and does it know the language of the lists?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from relisten.core.list_statistics import Estimate, mean_estimate
from relisten.core.text import spoken
from relisten.core.types import TEXT, ModelError
from relisten.lm.scorer import ScoringInput
from relisten.tasks.doctor.checks import Check, Lists
from relisten.tasks.loading import LoadedRescorer, load_rescorer

MOST_TEXTS = 60
"""Texts that are read, as they are and shuffled: seconds, and the interval is narrow enough."""
FEWEST_WORDS = 4
"""Shorter texts say as much when their words are shuffled."""


def check_model(lists: Lists, model: str, device: str = "auto", dtype: str = "auto") -> list[Check]:
    """The checks of a bundle or a causal LM; one that does not load is broken."""
    try:
        rescorer = load_rescorer(model, device, dtype)
    except ModelError as error:
        remedy = "name another model, or put the parts that belong together into its folder"
        return [Check("model", "broken", f"{model} does not load", str(error), remedy)]
    return [check_tokenizer(rescorer), check_reading(rescorer, texts_to_read(lists))]


def check_tokenizer(rescorer: LoadedRescorer) -> Check:
    """Do model and tokenizer mean the same by the special tokens? (Tokens without embeddings are
    refused when the model is loaded.)"""
    tokenizer, causal = rescorer.scorer.texts.tokenizer, rescorer.scorer.model.causal
    n_tokens, n_rows = len(tokenizer), len(causal.get_input_embeddings().weight)
    vocabulary = rescorer.scorer.model.vocabulary
    begin, end = tokenizer.convert_ids_to_tokens([vocabulary.bos_id, vocabulary.eos_id])
    finding = (
        f"{n_tokens:,} tokens, {n_rows:,} embeddings; texts begin with {begin!r}, end with {end!r}"
    )
    statistics = {"tokens": float(n_tokens), "embeddings": float(n_rows)}
    differing = [
        f"{name} is {own} to the tokenizer, {theirs} to the model"
        for name in ("bos", "eos", "pad")
        if isinstance(own := getattr(tokenizer, f"{name}_token_id"), int)
        and isinstance(theirs := getattr(causal.config, f"{name}_token_id", None), int)
        and own != theirs
    ]
    if differing:
        remedy = "put the tokenizer's files of this very model into its folder"
        meaning = ", ".join(differing)
        return Check("tokenizer", "look here", finding, meaning, remedy, statistics)
    return Check("tokenizer", "ok", finding, statistics=statistics)


def texts_to_read(lists: Lists) -> list[str]:
    """References, or, without any, the first pass's choices: up to MOST_TEXTS, spread evenly."""
    references = [one.reference for one in lists.utterances if one.reference]
    choices = [one.hypotheses[0].text for one in lists.utterances if one.hypotheses]
    long = [text for text in references or choices if len(spoken(text).split()) >= FEWEST_WORDS]
    step = max(1, len(long) // MOST_TEXTS)
    return long[::step][:MOST_TEXTS]


def check_reading(rescorer: LoadedRescorer, texts: Sequence[str], seed: int = 0) -> Check:
    """Does the model find real texts likelier than the same words shuffled?"""
    if len(texts) < 2:
        finding = f"fewer than two texts have {FEWEST_WORDS} words or more"
        return Check("reading", "cannot tell", finding, "there is nothing to read")
    rng = np.random.default_rng(seed)
    real = [spoken(text) for text in texts]
    mixed = [_shuffled(text, rng) for text in real]
    pairs = rescorer.score([ScoringInput(pair) for pair in zip(real, mixed, strict=True)], TEXT)
    n_words = np.array([len(text.split()) for text in real])
    costs = -np.array(pairs) / n_words[:, None]
    advantage = mean_estimate(costs[:, 1] - costs[:, 0])
    return reading_check(float(costs[:, 0].mean()), float(costs[:, 1].mean()), advantage)


def reading_check(real: float, mixed: float, advantage: Estimate) -> Check:
    """The verdict on nats a word of real texts, of shuffled ones, and their difference."""
    finding = (
        f"real texts cost {real:.2f} nats a word, the same words shuffled {mixed:.2f}: "
        f"{advantage.value:+.2f} [{advantage.low:+.2f}, {advantage.high:+.2f}] over "
        f"{advantage.n_lists} texts"
    )
    statistics = {
        "nats_per_word": real,
        "nats_per_word_shuffled": mixed,
        "advantage": advantage.value,
        "advantage_low": advantage.low,
    }
    if advantage.low > 0:
        return Check("reading", "ok", finding, statistics=statistics)
    meaning = (
        "to this model the order of words says nothing: its tokenizer is another model's, or it "
        "does not know the language"
    )
    remedy = "put the model's own tokenizer into its folder, or name a model of this language"
    return Check("reading", "broken", finding, meaning, remedy, statistics)


def _shuffled(text: str, rng: np.random.Generator) -> str:
    """The words in another order."""
    words = text.split()
    order = rng.permutation(len(words))
    return " ".join(words[place] for place in order)
