"""Tiers from what people have: a scikit-learn classifier, a shell command, an endpoint with OpenAI's chat format.

Whatever goes wrong is a `TierError` that says so in one line, so that `Escalation` falls back to another tier.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vj.errors import InputError
from vj.tiers.model import Answer, Tier, TierError

_MAX_REPLY = 16 << 20
"""Bytes of a reply or of a command's output that are taken; a runaway one must not fill the memory."""


def classifier_tier(name: str, model: Any, cost: float | None = None) -> Tier:
    """Return a tier that asks a fitted classifier with scikit-learn's interface, one row of features a query.

    Parameters
    ----------
    name : str
    model : object
        With `predict_proba` and `classes_`. Confidence is the largest probability.
    cost : float, optional
        See `Tier`.

    Raises
    ------
    InputError
        The model has no such interface, or is not fitted.
    """
    for attribute in ("predict_proba", "classes_"):
        if not hasattr(model, attribute):
            raise InputError(f"{name}: expected a fitted classifier with {attribute}, got {type(model).__name__}")

    def batch(queries: Sequence[Any]) -> list[Any]:
        p = np.asarray(model.predict_proba(np.asarray(queries)), dtype=np.float64)
        classes = np.asarray(model.classes_)
        if p.shape != (len(queries), len(classes)):
            raise ValueError(f"expected probabilities of shape {(len(queries), len(classes))}, got {p.shape}")
        best = [int(np.argmax(row)) if np.isfinite(row).all() else -1 for row in p]
        return [
            # Rounding may leave 1 by a little; more than that is no probability, and `Answer` refuses it.
            Answer(classes[k].item(), min(float(row[k]), 1.0) if row[k] <= 1 + 1e-6 else float(row[k]))
            if k >= 0
            else ValueError("expected finite probabilities, got NaN or infinity")
            for k, row in zip(best, p, strict=True)
        ]

    return Tier(name, None, cost, batch=batch)


def command_tier(
    name: str, command: str | Sequence[str], cost: float | None = None, *, time_limit: float = 60.0
) -> Tier:
    """Return a tier that runs a command for each query: the query on its standard input, the answer on its output.

    The output is one JSON object with `value`, `confidence` and, if wanted, `label`. A query that is no text is passed
    as JSON.

    Parameters
    ----------
    name : str
    command : str or sequence of str
        A string goes through the shell; a list does not.
    cost : float, optional
        See `Tier`.
    time_limit : float
        Seconds; the command is then killed, with whatever it has started.

    Raises
    ------
    InputError
        No command, or a time limit that is not positive.
    """
    if not command:
        raise InputError(f"{name}: expected a command, got none")
    _check_limit(name, time_limit)
    shell = isinstance(command, str)

    def run(query: Any) -> Answer:
        text = query if isinstance(query, str) else json.dumps(query)
        # A session of its own, so that what the shell started can be ended with it.
        process = subprocess.Popen(
            command,
            shell=shell,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=os.name == "posix",
        )
        try:
            out, err = process.communicate(text.encode(), timeout=time_limit)
        except subprocess.TimeoutExpired:
            raise TierError(f"{name}: no answer within {time_limit:g} s") from None
        finally:
            _end(process)
        if process.returncode:
            last = (err.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise TierError(f"{name}: the command ended with status {process.returncode}: {last[:200]}")
        return _answer(name, out)

    return Tier(name, run, cost)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    try:
        if os.name == "posix":
            os.killpg(process.pid, 9)
        else:
            process.kill()
    except ProcessLookupError:
        pass
    process.communicate()


def _answer(name: str, out: bytes) -> Answer:
    try:
        plain = json.loads(out)
        value, confidence, label = plain["value"], plain["confidence"], plain.get("label")
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = out[:100].decode(errors="replace")
        raise TierError(f"{name}: expected a JSON object with value and confidence, got {shown!r}") from None
    return Answer(value, confidence, label)


def chat_tier(
    name: str,
    url: str,
    model: str,
    cost: float | None = None,
    *,
    settings: ChatSettings | None = None,
) -> Tier:
    """Return a tier that asks an HTTP endpoint that speaks OpenAI's chat format, with token probabilities.

    A query is a text, or a list of messages with `role` and `content`. The confidence is the geometric mean of the
    probabilities of the answer's tokens: exp of their mean log-probability.

    Parameters
    ----------
    name : str
    url : str
        Up to and with the version, such as ``http://localhost:8000/v1``; ``/chat/completions`` is added.
    model : str
    cost : float, optional
        See `Tier`.
    settings : ChatSettings, optional

    Raises
    ------
    InputError
        A url that is not http or https.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"{name}: expected a url with http or https, got {url!r}")
    chosen = settings or ChatSettings()
    _check_limit(name, chosen.time_limit)
    target = url.rstrip("/") + "/chat/completions"

    def run(query: Any) -> Answer:
        messages = [{"role": "user", "content": query}] if isinstance(query, str) else query
        if chosen.system:
            messages = [{"role": "system", "content": chosen.system}, *messages]
        body = {"model": model, "messages": messages, "logprobs": True, "temperature": 0} | dict(chosen.body)
        plain = _post(name, target, body, chosen)
        text, confidence = _read_chat(name, plain)
        return Answer(text, confidence, chosen.label(text) if chosen.label is not None else text.strip())

    return Tier(name, run, cost)


class ChatSettings:
    """How a chat endpoint is asked.

    Parameters
    ----------
    key : str, optional
        Sent as bearer token; never shown in an error.
    system : str, optional
        Message put before every query.
    label : callable, optional
        From the text of an answer to its label, see `Answer`; by default the text without space around it. For
        multiple choice ``lambda text: text.strip()[:1]``.
    time_limit : float
        Seconds without anything from the server; `Escalation` limits the whole call.
    body : mapping
        Further fields of the request, such as ``{"max_tokens": 1}``.
    """

    def __init__(
        self,
        *,
        key: str | None = None,
        system: str | None = None,
        label: Callable[[str], str] | None = None,
        time_limit: float = 60.0,
        body: dict[str, Any] | None = None,
    ) -> None:
        self.key, self.system, self.label, self.time_limit, self.body = key, system, label, time_limit, body or {}


def _check_limit(name: str, limit: float) -> None:
    if not 0 < limit < math.inf:
        raise InputError(f"{name}: expected a time limit above 0 seconds, got {limit}")


def _post(name: str, url: str, body: dict[str, Any], settings: ChatSettings) -> Any:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if settings.key:
        headers["Authorization"] = f"Bearer {settings.key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        # The scheme is checked above: no file, no ftp. Not the default opener: it would send the key on a redirect.
        with _OPENER.open(request, timeout=settings.time_limit) as reply:
            raw = reply.read(_MAX_REPLY + 1)
    except urllib.error.HTTPError as error:
        with error:
            said = _said(error.read(2000))
        raise TierError(f"{name}: expected status 200, got {error.code} {error.reason}{said}") from None
    except TimeoutError:
        raise TierError(f"{name}: no answer within {settings.time_limit:g} s") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise TierError(f"{name}: no answer within {settings.time_limit:g} s") from None
        raise TierError(f"{name}: expected an answer from {url}, got {reason}") from None
    if len(raw) > _MAX_REPLY:
        raise TierError(f"{name}: expected at most {_MAX_REPLY} bytes, got more")
    try:
        return json.loads(raw)
    except ValueError:
        raise TierError(f"{name}: expected JSON, got {raw[:80].decode(errors='replace')!r}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: the redirect becomes an HTTPError."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def _said(raw: bytes) -> str:
    """Return the message in an error's body, if it holds one."""
    found = re.search(rb'"message"\s*:\s*"((?:[^"\\]|\\.){1,200})', raw)
    return f": {found[1].decode(errors='replace')}" if found else ""


def _read_chat(name: str, plain: Any) -> tuple[str, float]:
    """Return the answer's text and its confidence."""
    try:
        choice = plain["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise TierError(f"{name}: expected choices with a message, got {json.dumps(plain)[:120]}") from None
    if not isinstance(text, str) or not text.strip():
        raise TierError(f"{name}: expected an answer as text, got {text!r:.80}")
    try:
        logs = [float(token["logprob"]) for token in choice["logprobs"]["content"]]
    except (KeyError, TypeError, ValueError):
        logs = []
    if not logs:
        raise TierError(
            f"{name}: expected token probabilities (logprobs), got none; without them there is no confidence"
        )
    mean = sum(logs) / len(logs)
    # -9999 stands for "not among the most likely"; NaN and positive ones are no log-probabilities.
    if not mean <= 1e-6:
        raise TierError(f"{name}: expected log-probabilities of at most 0, got a mean of {mean}")
    return text, math.exp(min(0.0, mean))
