"""Do a model and its tokenizer belong together, and does it model the language of the lists?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from relisten.core.list_statistics import IntervalEstimate, mean_estimate
from relisten.core.text import spoken
from relisten.core.types import TEXT, ModelError
from relisten.lm.scorer import ScoringInput
from relisten.tasks.doctor.checks import Check, Lists
from relisten.tasks.loading import LoadedRescorer, load_rescorer

MAX_TEXTS = 60
"""Texts that are scored, as they are and shuffled: it takes seconds, and the interval is narrow."""
MIN_SCORED_WORDS = 4
"""In a shorter text the order of words matters too little."""


def check_model(lists: Lists, model: str, device: str = "auto", dtype: str = "auto") -> list[Check]:
    """The checks of a bundle or a causal LM; one that does not load is broken."""
    try:
        rescorer = load_rescorer(model, device, dtype)
    except ModelError as error:
        remedy = "name another model, or put the parts that belong together into its folder"
        return [Check("model", "broken", f"{model} does not load", str(error), remedy)]
    return [check_tokenizer(rescorer), check_reading(rescorer, texts_to_read(lists))]


def check_tokenizer(rescorer: LoadedRescorer) -> Check:
    """Do model and tokenizer agree on the special tokens? (Tokens without embeddings are refused
    when the model is loaded.)"""
    tokenizer, causal = rescorer.scorer.texts.tokenizer, rescorer.scorer.model.causal
    n_tokens, n_rows = len(tokenizer), len(causal.get_input_embeddings().weight)
    vocabulary = rescorer.scorer.model.vocabulary
    begin, end = tokenizer.convert_ids_to_tokens([vocabulary.bos_id, vocabulary.eos_id])
    finding = (
        f"{n_tokens:,} tokens, {n_rows:,} embeddings; texts begin with {begin!r}, end with {end!r}"
    )
    statistics = {"tokens": float(n_tokens), "embeddings": float(n_rows)}
    differing = [
        f"{name} is {own} in the tokenizer, {theirs} in the model"
        for name in ("bos", "eos", "pad")
        if isinstance(own := getattr(tokenizer, f"{name}_token_id"), int)
        and isinstance(theirs := getattr(causal.config, f"{name}_token_id", None), int)
        and own != theirs
    ]
    if differing:
        remedy = "put the tokenizer files of this very model into its folder"
        meaning = ", ".join(differing)
        return Check("tokenizer", "look here", finding, meaning, remedy, statistics)
    return Check("tokenizer", "ok", finding, statistics=statistics)


def texts_to_read(lists: Lists) -> list[str]:
    """References, or, without any, the first pass's choices: up to MAX_TEXTS, spread evenly."""
    references = [one.reference for one in lists.utterances if one.reference]
    choices = [one.hypotheses[0].text for one in lists.utterances if one.hypotheses]
    long = [text for text in references or choices if len(spoken(text).split()) >= MIN_SCORED_WORDS]
    step = max(1, len(long) // MAX_TEXTS)
    return long[::step][:MAX_TEXTS]


def check_reading(rescorer: LoadedRescorer, texts: Sequence[str], seed: int = 0) -> Check:
    """Does the model give real texts a higher probability than the same words shuffled?"""
    if len(texts) < 2:
        finding = f"fewer than two texts have {MIN_SCORED_WORDS} words or more"
        return Check("reading", "cannot tell", finding, "there is nothing to score")
    rng = np.random.default_rng(seed)
    real = [spoken(text) for text in texts]
    mixed = [_shuffled(text, rng) for text in real]
    pairs = rescorer.score([ScoringInput(pair) for pair in zip(real, mixed, strict=True)], TEXT)
    n_words = np.array([len(text.split()) for text in real])
    costs = -np.array(pairs) / n_words[:, None]
    advantage = mean_estimate(costs[:, 1] - costs[:, 0])
    return reading_check(float(costs[:, 0].mean()), float(costs[:, 1].mean()), advantage)


def reading_check(real: float, mixed: float, advantage: IntervalEstimate) -> Check:
    """The check of nats per word of real texts, of shuffled ones, and their difference."""
    finding = (
        f"real texts cost {real:.2f} nats per word, the same words shuffled {mixed:.2f}: "
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
        "word order makes no difference to this model: its tokenizer is another model's, or "
        "it was not trained on the language"
    )
    remedy = "put the model's own tokenizer into its folder, or name a model of this language"
    return Check("reading", "broken", finding, meaning, remedy, statistics)


def _shuffled(text: str, rng: np.random.Generator) -> str:
    """The words in another order."""
    words = text.split()
    order = rng.permutation(len(words))
    return " ".join(words[place] for place in order)
