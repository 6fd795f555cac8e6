"""Whether the lossless rule of speculative cascades is that, and what the others trade, with real language models.

    python -m benchmarks.speculative [TEXT] [--draft ORDER ...] [--heavy ORDER]

TEXT is a text file or a Python module that holds a book, such as `python data/prepare.py kjv` fetches; by default the
topics of Python's own help (PSF licence), which every Python has. Both models are character n-grams with Kneser-Ney
smoothing, trained on nine lines of ten and measured on the tenth.

Three measurements. *Lossless*: three generated characters against their exact probabilities (chi-square), and whole
texts against texts drawn from the heavy model itself (permutation test on counts of neighbouring characters, whole
texts as units); the same tests on the draft and on lossy rules show what they can detect. *Rules*: bits per character
of held-out text under the distribution that stands, and of generated text under the heavy model, against heavy calls
per character and time. Time is modelled: a heavy call, for all places of a block at once, takes 1, a draft a twentieth.
*Clock*: for some settings the models are made to sleep that long, 20 and 1 ms, and a clock is read.
"""

from __future__ import annotations

import argparse
import math
import pydoc_data.topics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks import _runner
from benchmarks._ngrams import Alphabet, NGrams, read_text
from vj.errors import InputError
from vj.tiers import Drafted, Speculated, SpeculativeTokens, TokenRule, collect

STEPS = 4
DRAFT_TIME = 0.05
"""Time of one draft relative to a heavy call, a usual ratio of two language models (Leviathan et al. 2023, table 2)."""
HEAVY_SECONDS = 0.02
PROMPT, TEXTS, LENGTH, HELD_OUT = 20, 80, 200, 40_000
ALPHAS = {
    "lossless": (0.0,),
    "lenient": (0.1, 0.3, 0.5, 0.7, 0.85, 0.95),
    "chow": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    "diff": (-0.2, 0.0, 0.1, 0.2, 0.4, 0.6),
    "opt": (0.0, 0.25, 0.5, 0.75, 1.0, 1.5),
    "token_v1": (0.2, 0.4, 0.5, 0.6, 0.7, 0.9),
    "token_v2": (0.1, 0.3, 0.5, 0.7, 0.85, 0.95),
    "token_v3": (0.1, 0.3, 0.5, 0.7, 0.9, 0.98),
}
TESTED = (("lossless", 0.0), ("lenient", 0.3), ("token_v3", 0.3))
CLOCKED = (("lossless", 0.0), ("opt", 0.75), ("token_v3", 0.9))


class Models:
    """The text, its split, and n-gram models of it by order."""

    def __init__(self, text: str) -> None:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 1000:
            raise InputError(f"expected a text of at least 1000 lines, got {len(lines)}")
        train = "\n".join(line for k, line in enumerate(lines) if k % 10 < 9)
        self.alphabet = Alphabet(train)
        self.train = self.alphabet.encode(train)
        held_out = "\n".join(line for k, line in enumerate(lines) if k % 10 == 9)
        self.held_out = self.alphabet.encode(held_out)
        starts = np.linspace(0, len(self.held_out) - PROMPT, TEXTS, dtype=int)
        self.prompts = [tuple(self.held_out[k : k + PROMPT].tolist()) for k in starts]

    def model(self, order: int) -> NGrams:
        """Train one."""
        return NGrams(self.train, len(self.alphabet), order)


def bits(distributions: Any, ids: Any) -> Any:
    return -np.log2(distributions[np.arange(len(ids)), ids])


def texts(pair: SpeculativeTokens, prompts: Sequence[tuple[int, ...]], seed: int) -> list[Speculated]:
    """Continue each prompt; texts are independent of one another."""
    seeds = np.random.SeedSequence(seed).spawn(len(prompts))
    return [
        collect(pair.run(prompt, LENGTH, seed=np.random.default_rng(one)))
        for prompt, one in zip(prompts, seeds, strict=True)
    ]


def drawn(model: NGrams, prompts: Sequence[tuple[int, ...]], seed: int) -> list[tuple[int, ...]]:
    """Continue each prompt with one model alone, all texts side by side."""
    rng = np.random.default_rng(seed)
    rows = np.array(prompts)
    for _ in range(LENGTH):
        sums = model.after(rows[:, 1 - model.order :]).cumsum(1)
        nexts = (sums < rng.random((len(rows), 1)) * sums[:, -1:]).sum(1)
        rows = np.concatenate([rows, nexts[:, None]], axis=1)
    return [tuple(row) for row in rows[:, PROMPT:].tolist()]


def generated_bits(model: NGrams, prompts: Sequence[tuple[int, ...]], found: Sequence[tuple[int, ...]]) -> Any:
    """Mean bits per character of each text under a model."""
    out = []
    for prompt, text in zip(prompts, found, strict=True):
        ids = np.array(prompt + text)
        out.append(bits(model.along(ids, PROMPT), ids[PROMPT:]).mean())
    return np.array(out)


# Is lossless lossless?


def exact_test(draft: NGrams, heavy: NGrams, rule: TokenRule, prompt: tuple[int, ...], runs: int) -> dict[str, Any]:
    """Chi-square of the next three characters, generated `runs` times, against the heavy model's own probabilities."""
    pair = SpeculativeTokens(draft, heavy.of_all, rule, steps=2, batched=True)
    rng = np.random.default_rng(1)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(runs):
        found = collect(pair.run(prompt, 3, seed=rng)).values
        counts[found] = counts.get(found, 0) + 1
    expected = {(): float(runs)}
    for _ in range(3):
        # What is expected less than five times is not followed further; all that goes into one cell.
        grown: dict[tuple[int, ...], float] = {}
        for so_far, share in expected.items():
            following = share * heavy(prompt + so_far)
            grown |= {(*so_far, int(k)): float(following[k]) for k in np.flatnonzero(following >= 5)}
        expected = grown
    observed = [counts.get(key, 0) for key in expected]
    rest = runs - sum(expected.values())
    values = [*expected.values(), rest]
    found = stats.chisquare([*observed, runs - sum(observed)], values)
    return {"runs": runs, "cells": len(values), "chi_square": float(found.statistic), "p": float(found.pvalue)}


def pair_counts(found: Sequence[tuple[int, ...]], size: int) -> Any:
    """How often each pair of neighbouring characters is in each text; shape (texts, size * size)."""
    out = np.zeros((len(found), size * size))
    for row, text in zip(out, found, strict=True):
        ids = np.array(text)
        np.add.at(row, ids[:-1] * size + ids[1:], 1)
    return out[:, out.sum(0) > 0]


def permutation_test(one: Sequence[Any], other: Sequence[Any], size: int, permutations: int = 2000) -> float:
    """Probability of pair counts as different (chi-square) or more when texts of a prompt change sides at random."""
    counts = pair_counts([*one, *other], size)
    rng = np.random.default_rng(2)
    total = counts.sum(0)

    def distances(first: Any) -> Any:
        mine = first @ counts
        share = mine.sum(1, keepdims=True) / total.sum()
        return ((mine - share * total) ** 2 / (total * share * (1 - share))).sum(1)

    # Both sides continue the same prompts: a permutation swaps the two texts of some of them.
    swapped = rng.random((permutations + 1, len(one))) < 0.5
    swapped[0] = False
    members = np.concatenate([~swapped, swapped], axis=1).astype(float)
    found = np.concatenate([distances(part) for part in np.array_split(members, 20)])
    return float((found >= found[0]).mean())


def losslessness(models: Models, draft: NGrams, heavy: NGrams) -> dict[str, Any]:
    """Both tests for the lossless rule, lossy ones, and the draft alone."""
    many = models.prompts * 4
    truth, size = drawn(heavy, many, seed=11), len(models.alphabet)
    truth_bits = generated_bits(heavy, many, truth)
    out: dict[str, Any] = {}
    sources: list[tuple[str, Callable[[], list[tuple[int, ...]]], TokenRule | None]] = [
        ("heavy alone, another draw", lambda: drawn(heavy, many, seed=12), None)
    ]
    for name, alpha in TESTED:
        rule = TokenRule(name, alpha)
        pair = SpeculativeTokens(draft, heavy.of_all, rule, steps=STEPS, batched=True)
        label = name if name == "lossless" else f"{name} {alpha:g}"
        sources.append((label, lambda pair=pair: [one.values for one in texts(pair, many, seed=13)], rule))
    sources.append(("draft alone", lambda: drawn(draft, many, seed=14), None))
    for label, make, rule in sources:
        found = make()
        difference = generated_bits(heavy, many, found) - truth_bits
        out[label] = {
            "texts": len(found),
            "permutation_p": permutation_test(truth, found, size),
            "bits_more": float(difference.mean()),
            "standard_error": float(difference.std(ddof=1) / math.sqrt(len(difference))),
        }
        if rule is not None:
            out[label]["exact"] = exact_test(draft, heavy, rule, models.prompts[0], 20_000)
        print(f"  {label}: {out[label]}", flush=True)
    return out


# What the rules trade.


def modelled_time(found: Sequence[Speculated], rule: TokenRule) -> float:
    """Time per character relative to a heavy call; every place that the rule compares needs a draft as well."""
    drafts = sum(one.drafted for one in found)
    if rule.name != "lossless":
        drafts += sum(one.heavy_calls for one in found)
    calls = sum(one.heavy_calls for one in found)
    return (drafts * DRAFT_TIME + calls) / sum(len(one.values) for one in found)


def measured(
    models: Models, draft: NGrams, heavy: NGrams, held: tuple[Any, Any, Any], rule: TokenRule
) -> dict[str, Any]:
    """One point of a rule's curve."""
    q, p, ids = held
    target = rule.target(q, p)
    pair = SpeculativeTokens(draft, heavy.of_all, rule, steps=STEPS, batched=True)
    found = texts(pair, models.prompts, seed=21)
    characters = sum(len(one.values) for one in found)
    each = generated_bits(heavy, models.prompts, [one.values for one in found])
    return {
        "rule": rule.name,
        "alpha": rule.alpha,
        "held_out_bits": float(bits(target, ids).mean()),
        "accepted": float(np.minimum(q, target).sum(1).mean()),
        "generated_bits": float(each.mean()),
        "generated_bits_error": float(each.std(ddof=1) / math.sqrt(len(each))),
        "heavy_calls": sum(one.heavy_calls for one in found) / characters,
        "heavy_places": sum(one.asked for one in found) / characters,
        "drafts_kept": sum(one.kept for one in found) / sum(one.drafted for one in found),
        "time": modelled_time(found, rule),
    }


def alone(models: Models, model: NGrams, heavy: NGrams, q: Any, ids: Any, seconds: float) -> dict[str, Any]:
    each = generated_bits(heavy, models.prompts, drawn(model, models.prompts, seed=22))
    return {
        "order": model.order,
        "held_out_bits": float(bits(q, ids).mean()),
        "generated_bits": float(each.mean()),
        "generated_bits_error": float(each.std(ddof=1) / math.sqrt(len(each))),
        "heavy_calls": 0.0 if model is not heavy else 1.0,
        "time": seconds,
    }


def random_choice(q: Any, p: Any, ids: Any) -> list[dict[str, float]]:
    """Return the line to beat: a coin decides for each character which of both models is asked."""
    return [
        {
            "heavy_calls": share,
            "held_out_bits": float(bits((1 - share) * q + share * p, ids).mean()),
            "time": share + (1 - share) * DRAFT_TIME,
        }
        for share in np.linspace(0, 1, 11).tolist()
    ]


def clocked(models: Models, draft: NGrams, heavy: NGrams, rule: TokenRule | None) -> dict[str, float]:
    """Seconds per character with models that sleep, of the heavy one alone if there is no rule."""

    def slow(model: Callable[[Any], Any], seconds: float) -> Callable[[Any], Any]:
        def asked(context: Any) -> Any:
            start = time.perf_counter()
            found = model(context)
            # The models' own time is part of it.
            time.sleep(max(0.0, seconds - (time.perf_counter() - start)))
            return found

        return asked

    prompt, n = models.prompts[0], 400
    if rule is None:
        asked = slow(heavy, HEAVY_SECONDS)
        start = time.perf_counter()
        for _ in range(50):
            asked(prompt)
        return {"seconds": (time.perf_counter() - start) / 50, "modelled": HEAVY_SECONDS, "shown": HEAVY_SECONDS}
    cheap, costly = slow(draft, HEAVY_SECONDS * DRAFT_TIME), slow(heavy.of_all, HEAVY_SECONDS)
    pair = SpeculativeTokens(cheap, costly, rule, steps=STEPS, batched=True)
    start = time.perf_counter()
    events, first = [], None
    for event in pair.run(prompt, n, seed=31):
        if first is None and isinstance(event, Drafted):
            first = time.perf_counter() - start
        events.append(event)
    seconds = (time.perf_counter() - start) / n
    return {
        "seconds": seconds,
        "modelled": HEAVY_SECONDS * modelled_time([collect(events)], rule),
        "shown": float(first or 0),
    }


def curves(models: Models, draft: NGrams, heavy: NGrams) -> dict[str, Any]:
    held = models.held_out[: HELD_OUT + heavy.order]
    ids = held[heavy.order :]
    q, p = draft.along(held, heavy.order), heavy.along(held, heavy.order)
    points = []
    for name, alpha in ((name, alpha) for name, alphas in ALPHAS.items() for alpha in alphas):
        points.append(measured(models, draft, heavy, (q, p, ids), TokenRule(name, alpha)))
        print(f"  {name} {alpha:g}: {points[-1]}", flush=True)
    clock = {"heavy alone": clocked(models, draft, heavy, None)}
    clock |= {f"{name} {alpha:g}": clocked(models, draft, heavy, TokenRule(name, alpha)) for name, alpha in CLOCKED}
    return {
        "draft_alone": alone(models, draft, heavy, q, ids, DRAFT_TIME),
        "heavy_alone": alone(models, heavy, heavy, p, ids, 1.0),
        "random": random_choice(q, p, ids),
        "points": points,
        "clock": clock,
    }


def best(points: Sequence[dict[str, Any]], allowed: float) -> dict[str, Any] | None:
    """Return the point with the fewest heavy calls among those with at most so many held-out bits."""
    fine = [point for point in points if point["held_out_bits"] <= allowed]
    return min(fine, key=lambda point: point["heavy_calls"], default=None)


def table(figures: dict[str, Any]) -> str:
    """Markdown table of a result file: for each pair of models both alone, lossless, and each rule at two losses."""
    rows = []
    for pair in figures["pairs"]:
        curve = pair["curves"]
        draft, heavy = curve["draft_alone"], curve["heavy_alone"]
        names = f"{draft['order']} -> {heavy['order']}"
        gap = draft["held_out_bits"] - heavy["held_out_bits"]
        for label, one in (("heavy alone", heavy), ("draft alone", draft)):
            rows.append(_row(names, label, one))
        rows.append(_row(names, "lossless", next(p for p in curve["points"] if p["rule"] == "lossless")))
        for rule in (name for name in ALPHAS if name != "lossless"):
            point = best([p for p in curve["points"] if p["rule"] == rule], heavy["held_out_bits"] + 0.1 * gap)
            if point is not None:
                rows.append(_row(names, f"{rule}, alpha {point['alpha']:g}", point))
    header = ["orders", "what stands", "bits, held out", "bits, generated", "heavy calls", "time"]
    return _runner.table(header, rows)


def _row(names: str, label: str, one: dict[str, Any]) -> list[str]:
    return [
        names,
        label,
        f"{one['held_out_bits']:.3f}",
        f"{one['generated_bits']:.2f} ± {one['generated_bits_error']:.2f}",
        f"{one['heavy_calls']:.3f}",
        f"{one['time']:.3f}",
    ]


def plot(path: Path, figures: dict[str, Any]) -> None:
    """Write the curves: a row for each pair of models."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.4 * len(figures["pairs"])), layout="constrained")
    rows = figure.subplots(len(figures["pairs"]), 3, squeeze=False)
    views = (
        ("heavy_calls", "heavy calls per character", "held_out_bits", "held-out text, bits per character"),
        ("time", "time per character, modelled (heavy call = 1)", "held_out_bits", "held-out text, bits per character"),
        ("heavy_calls", "heavy calls per character", "generated_bits", "generated text under the heavy model, bits"),
    )
    for axes, pair in zip(rows, figures["pairs"], strict=True):
        curve = pair["curves"]
        for view, (x, x_label, y, y_label) in zip(axes, views, strict=True):
            for k, rule in enumerate(name for name in ALPHAS if name != "lossless"):
                points = sorted((p for p in curve["points"] if p["rule"] == rule), key=lambda p: p["alpha"])
                view.plot([p[x] for p in points], [p[y] for p in points], marker=".", color=f"C{k}", label=rule, lw=1.2)
            if y == "held_out_bits":
                both = [[point[name] for point in curve["random"]] for name in (x, y)]
                view.plot(*both, color="0.6", ls="--", label="a coin for each character")
            single = (("draft_alone", "s", "draft alone"), ("heavy_alone", "D", "heavy alone"))
            for name, marker, label in single:
                view.plot(curve[name][x], curve[name][y], marker, color="k", label=label, ls="")
            exact = next(p for p in curve["points"] if p["rule"] == "lossless")
            view.plot(exact[x], exact[y], "*", color="k", ms=12, label="lossless", ls="")
            view.set(xlabel=x_label, ylabel=y_label)
            view.grid(alpha=0.3)
        orders = f"{curve['draft_alone']['order']}-grams draft, {curve['heavy_alone']['order']}-grams verify"
        axes[1].set_title(orders)
    rows[0][0].legend(fontsize=8)
    partial = path.with_name(f"{path.stem}.part.png")
    figure.savefig(partial, dpi=110)
    partial.replace(path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speculative", description=__doc__.split("\n\n")[0])
    parser.add_argument("text", nargs="?", type=Path, metavar="TEXT", help="default: the topics of Python's own help")
    parser.add_argument("--draft", type=int, nargs="+", default=[2, 4], metavar="ORDER", help="default 2 and 4")
    parser.add_argument("--heavy", type=int, default=8, metavar="ORDER", help="default 8")
    parser.add_argument("--output", type=Path, default=_runner.RESULTS, metavar="DIR", help="where JSON and plot go")
    return _runner.run("speculative", _run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    path = args.text or Path(pydoc_data.topics.__file__)
    text = read_text(path) if args.text else "\n".join(pydoc_data.topics.topics.values())
    # In the King James Version brackets mark words that the translators put in.
    models = Models(text.replace("[", "").replace("]", ""))
    heavy = models.model(args.heavy)
    singles = {}
    held = models.held_out[: HELD_OUT + 8]
    for order in range(1, args.heavy + 1):
        singles[order] = float(bits(models.model(order).along(held, 8), held[8:]).mean())
    print(f"held-out bits by order: {singles}", flush=True)
    pairs = []
    for order in args.draft:
        draft = models.model(order)
        print(f"{order}-grams draft, {args.heavy}-grams verify", flush=True)
        pairs.append({"lossless": losslessness(models, draft, heavy), "curves": curves(models, draft, heavy)})
    figures = {
        "steps": STEPS,
        "draft_time": DRAFT_TIME,
        "heavy_seconds": HEAVY_SECONDS,
        "texts": TEXTS,
        "length": LENGTH,
        "characters": len(models.alphabet),
        "trained_on": len(models.train),
        "held_out_bits_by_order": singles,
        "pairs": pairs,
    }
    data = {"name": f"{path.name}, {len(text):,} characters", "sha256": _runner.data_hash([path])}
    written = _runner.write_result("speculative", figures, data=data, folder=args.output)
    plot(written.with_suffix(".png"), figures)
    print(f"\n{table(figures)}\n\nWritten: {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
