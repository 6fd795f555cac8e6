"""Adapters against a local chat server, real commands, and a classifier with scikit-learn's interface."""

import contextlib
import json
import math
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from vj.errors import InputError
from vj.tiers import ChatSettings, TierError, chat_tier, classifier_tier, command_tier


class _Nearest:
    """Nearest centroid with scikit-learn's interface: softmax of negative distances."""

    def __init__(self, centroids, classes):
        self.centroids, self.classes_ = np.asarray(centroids, float), np.asarray(classes)

    def predict_proba(self, rows):
        z = np.exp(-np.abs(np.asarray(rows, float)[:, None] - self.centroids).sum(axis=2))
        return z / z.sum(axis=1, keepdims=True)


def test_a_classifier_answers_its_likeliest_class():
    model = _Nearest([[0, 0], [4, 4]], ["left", "right"])
    tier = classifier_tier("m", model, 1.0)
    rows = np.array([[0, 1], [4, 3], [1, 2]], float)
    expected = model.predict_proba(rows)
    for reply, p in zip(tier.ask_many(rows), expected, strict=True):
        assert reply.answer.value == model.classes_[p.argmax()]
        assert reply.answer.confidence == pytest.approx(p.max())
    assert tier.ask(rows[0]).answer.label == "left"
    assert classifier_tier("m", _Nearest([[0], [1]], [3, 7])).ask([0.9]).answer.value == 7


def test_a_pipeline_of_scikit_learn_is_a_tier():
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    truth = rng.choice(["cat", "dog"], 80)
    rows = rng.normal(size=(80, 3)) + (truth == "dog")[:, None]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, truth)
    tier = classifier_tier("light", model, 1.0)
    replies = tier.ask_many(rows[:10])
    assert [reply.answer.value for reply in replies] == model.predict(rows[:10]).tolist()
    assert [reply.answer.confidence for reply in replies] == pytest.approx(model.predict_proba(rows[:10]).max(axis=1))


def test_a_classifier_that_fails_is_an_error_for_its_query():
    class Odd(_Nearest):
        def predict_proba(self, rows):
            p = super().predict_proba(rows)
            p[0] = np.nan
            return p

    bad, good = classifier_tier("m", Odd([[0], [1]], ["a", "b"])).ask_many([[0], [1]])
    assert isinstance(bad, TierError)
    assert "finite probabilities" in str(bad)
    assert good.answer.value == "b"
    with pytest.raises(InputError, match="m: expected a fitted classifier with predict_proba, got int"):
        classifier_tier("m", 3)
    with pytest.raises(TierError, match=r"could not|convert"):
        classifier_tier("m", _Nearest([[0], [1]], ["a", "b"])).ask(["text"])


def _python(code):
    return [sys.executable, "-c", code]


ECHO = "import sys, json; t = sys.stdin.read(); print(json.dumps({'value': t.upper(), 'confidence': len(t) / 10}))"


def test_a_command_reads_the_query_and_prints_the_answer():
    answer = command_tier("c", _python(ECHO), 1.0).ask("abc").answer
    assert (answer.value, answer.confidence, answer.label) == ("ABC", 0.3, "ABC")
    shell = command_tier("c", """cat > /dev/null; echo '{"value": 5, "confidence": 1, "label": "five"}'""")
    assert shell.ask({"any": "thing"}).answer.label == "five"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (_python("raise SystemExit('no model')"), "ended with status 1: no model"),
        (_python("print('hello')"), "JSON object with value and confidence, got 'hello"),
        (_python("print('{}')"), "value and confidence"),
        (_python("print('[1]')"), "value and confidence"),
        (_python("""print('{"value": 1, "confidence": 2}')"""), "confidence from 0 to 1, got 2"),
        (_python("""print('{"value": 1, "confidence": NaN}')"""), "confidence from 0 to 1, got nan"),
        (["/no/such/program"], "No such file|FileNotFound"),
    ],
)
def test_a_command_that_fails_says_so_in_one_line(command, message):
    with pytest.raises(TierError, match=message) as caught:
        command_tier("c", command).ask("query")
    assert str(caught.value).startswith("c: ")
    assert "\n" not in str(caught.value)


def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path):
    tick = tmp_path / "tick"
    start = time.monotonic()
    with pytest.raises(TierError, match=r"c: no answer within 0\.5 s"):
        command_tier("c", f"(sleep 2; touch {tick}) & sleep 30", time_limit=0.5).ask("q")
    assert time.monotonic() - start < 10
    time.sleep(2)
    assert not tick.exists()
    for limit in (0, -1, math.nan, math.inf):
        with pytest.raises(InputError, match="time limit"):
            command_tier("c", "true", time_limit=limit)
    with pytest.raises(InputError, match="expected a command"):
        command_tier("c", "")


LOGS = (math.log(0.9), math.log(0.4))


def _reply(text="B", logs=LOGS, **changes):
    tokens = [{"token": "x", "logprob": one} for one in logs]
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "logprobs": {"content": tokens}} | changes]}


@pytest.fixture
def server():
    """A chat endpoint; `server.behaviour` says what it sends, `server.seen` holds what came."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            here.seen.append((self.path, dict(self.headers), json.loads(self.rfile.read(length))))
            status, body, wait = here.behaviour
            time.sleep(wait)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{here.url}/elsewhere")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(raw)

        def log_message(self, *args):
            pass

    here = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.daemon_threads = True
    here.seen, here.behaviour = [], (200, _reply(), 0)
    here.url = f"http://127.0.0.1:{here.server_port}/v1"
    thread = threading.Thread(target=here.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield here
    here.shutdown()
    here.server_close()


def test_a_chat_endpoint_answers_with_the_mean_probability_of_its_tokens(server):
    settings = ChatSettings(key="secret", system="One letter.", label=lambda t: t.strip()[:1], body={"max_tokens": 4})
    server.behaviour = (200, _reply(" B) four"), 0)
    answer = chat_tier("m", server.url + "/", "tiny", 2.0, settings=settings).ask("2 + 2?").answer
    assert (answer.value, answer.label) == (" B) four", "B")
    assert answer.confidence == pytest.approx(math.sqrt(0.9 * 0.4))
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body["messages"] == [{"role": "system", "content": "One letter."}, {"role": "user", "content": "2 + 2?"}]
    assert (body["model"], body["logprobs"], body["max_tokens"]) == ("tiny", True, 4)
    given = [{"role": "user", "content": "hello"}]
    assert chat_tier("m", server.url, "tiny").ask(given).answer.label == "B) four"
    assert server.seen[1][2]["messages"] == given


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ((500, {"error": {"message": "overloaded"}}, 0), "expected status 200, got 500 .*: overloaded"),
        ((401, b"", 0), "expected status 200, got 401"),
        ((302, b"", 0), "expected status 200, got 302"),
        ((200, b"<html>", 0), "expected JSON, got '<html>'"),
        ((200, b"", 0), "expected JSON, got ''"),
        ((200, [], 0), "expected choices with a message"),
        ((200, {"choices": []}, 0), "expected choices with a message"),
        ((200, {"choices": [{"message": None}]}, 0), "expected choices with a message"),
        ((200, _reply(text=None), 0), "expected an answer as text"),
        ((200, _reply(text="  "), 0), "expected an answer as text"),
        ((200, _reply(logs=()), 0), "logprobs"),
        ((200, _reply(logprobs=None), 0), "logprobs"),
        ((200, _reply(logs=(0.5,)), 0), "log-probabilities of at most 0"),
        ((200, _reply(logs=(math.nan,)), 0), "log-probabilities of at most 0"),
        ((200, _reply(), 1.5), "no answer within 0.3 s"),
    ],
)
def test_an_endpoint_that_fails_says_so_in_one_line(server, behaviour, message):
    server.behaviour = behaviour
    tier = chat_tier("m", server.url, "tiny", settings=ChatSettings(key="secret", time_limit=0.3))
    with pytest.raises(TierError, match=message) as caught:
        tier.ask("hello")
    assert str(caught.value).startswith("m: ")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(server.seen) == 1


def test_an_endpoint_that_is_not_there():
    with pytest.raises(TierError, match=r"expected an answer from http://127\.0\.0\.1:9/v1/chat/completions"):
        chat_tier("m", "http://127.0.0.1:9/v1", "tiny", settings=ChatSettings(time_limit=2)).ask("hello")
    with pytest.raises(InputError, match="http or https, got 'file:///etc"):
        chat_tier("m", "file:///etc/passwd", "tiny")
