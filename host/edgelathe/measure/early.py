"""When an evaluation has settled what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.budget import Limit
from edgelathe.core.claim import Claim
from edgelathe.stats import stopping
from edgelathe.stats.metrics import Metric

Array = NDArray[np.generic]
Answer = Literal["continue", "in", "out"]
Ask = Callable[[Array], Answer]
"""Outputs of the first samples -> whether the limits are surely kept (`in`) or broken (`out`) by all samples."""


def settled(
    metric: Metric, limits: Sequence[Limit], labels: Array, total: int, base: Array | None, *,
    lenient: bool = False, prove: bool = False,
) -> Ask:  # fmt: skip
    """The question that accuracy limits put to an evaluation, by `stats.stopping`; samples must be in random order.

    Args:
        metric: only shares are settled early, others go on to the end.
        limits: of a budget; those that are not on accuracy are left out.
        labels: [total] as from `metrics.targets`.
        total: number of samples.
        base: outputs of the model that drops are counted against; None: there is none, and drops stay open.
        lenient: limits are judged by the value, not by its bound.
        prove: `out` says that the limits would not be shown to be kept, and not that they are broken: sooner known.
    """
    score = metric.per_sample
    asked = [limit for limit in limits if limit.metric in ("accuracy", "accuracy.drop") and not limit.relative]
    if not asked or score is None or metric.unit != "share":
        return lambda _: "continue"
    base_ok = None if base is None else score(base, labels).astype(bool)

    def ask(got: Array) -> Answer:
        n = len(got)
        ok = score(got, labels[:n]).astype(bool)
        answers: list[Answer] = []
        for limit in asked:
            if limit.metric == "accuracy":
                answers.append(
                    stopping.decide_share(int(ok.sum()), n, total, limit.value, lenient=lenient, prove=prove)
                )
            elif base_ok is None:
                return "continue"
            else:
                lost, won = int((base_ok[:n] & ~ok).sum()), int((~base_ok[:n] & ok).sum())
                answers.append(stopping.decide(lost, won, n, total, limit.value, lenient=lenient, prove=prove))
        if "out" in answers:
            return "out"
        return "in" if all(a == "in" for a in answers) else "continue"

    return ask


def answered(
    blocks: Iterable[Sequence[Array]], n: int, ask: Ask | None, *,
    before: Sequence[Array] = (), hear: Callable[[Array, int], None] = lambda block, done: None,
) -> tuple[Array, Answer]:  # fmt: skip
    """First outputs of n samples, or of as many as it takes until `ask` (None: nothing) is answered; and the answer.

    Args:
        blocks: from `stream`, from the first sample that is not in `before`.
        n: samples in all; they are asked about at `stopping.looks(n)`.
        ask: from `settled`.
        before: blocks that are there already.
        hear: told each new block, and how many samples are done with it.
    """
    parts = list(before)
    done = sum(map(len, parts))
    looks = [look for look in stopping.looks(n) if look > done]
    for first, *_ in blocks:
        parts.append(first)
        done += len(first)
        hear(first, done)
        if ask and done < n and done >= looks[0]:
            looks = [look for look in looks if look > done]
            answer = ask(np.concatenate(parts))
            if answer != "continue":
                return np.concatenate(parts), answer
    return np.concatenate(parts), "continue"


def kept(claims: Mapping[str, Claim], limits: Sequence[Limit]) -> dict[str, Claim]:
    """Claims of an evaluation that ended `in`: it has shown, at its own error rate, that these limits are kept.

    The bounds of the samples so far may lie beyond a limit that all samples surely keep; they end at the limit then.
    """
    found = dict(claims)
    for limit in limits:
        claim = found.get(limit.metric)
        if claim is None or limit.metric not in ("accuracy", "accuracy.drop") or limit.relative:
            continue
        if limit.upper:
            found[limit.metric] = replace(claim, upper=max(claim.value, min(claim.upper, limit.value)))
        else:
            found[limit.metric] = replace(claim, lower=min(claim.value, max(claim.lower, limit.value)))
    return found
