"""The endpoint as clients see it: answers, streams, refusals, and what happens when they hang up."""

import concurrent.futures
import json
import time

import httpx
import numpy as np
import pytest
from starlette import testclient

from dsmath.data.chat import encode_chat
from dsmath.data.solutions import chat_prompt
from dsmath.rollout.requests import Completion
from dsmath.rollout.texts import settled, token_texts
from dsmath.serve import answers
from dsmath.serve.app import make_app
from dsmath.serve.service import Checkpoint, Service
from dsmath.serve.worker import Worker

CONTEXT, MAX_NEW_TOKENS = 64, 32  # as in conftest.py
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "How many?"}]


def _events(endpoint, path, **body):
    """The pieces of a stream, each parsed; it ends with [DONE]."""
    with endpoint.client.stream("POST", path, json=body | {"stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


# ------------------------------------------------------------------------------------------------- completions
def test_log_probabilities_of_prompt_and_sample_are_those_of_the_training_forward_pass(endpoint):
    prompt = endpoint.tokenizer.encode("小明有3盒苹果 and 12 apples")
    asked = {"prompt": prompt, "max_tokens": 9, "echo": True, "logprobs": 1, "temperature": 0, "seed": 3}
    body = endpoint.post(COMPLETIONS, **asked)
    told = body["choices"][0]["logprobs"]
    assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
    sampled = endpoint.post(COMPLETIONS, **asked | {"echo": False})["choices"][0]
    # A greedy sample is the likeliest token at each place, by the training forward pass too.
    tokens = list(prompt)
    for _ in range(9):
        tokens.append(int(endpoint.score([*tokens, 0])[1][-1]))
    logprobs, best = endpoint.score(tokens)
    np.testing.assert_allclose(told["token_logprobs"][1:], logprobs, atol=1e-4)
    likeliest = [max(top.values()) for top in told["top_logprobs"][1:]]
    greedy = [found == most for found, most in zip(told["token_logprobs"][1:], likeliest, strict=True)]
    assert greedy == (best == np.array(tokens[1:])).tolist()
    assert body["choices"][0]["text"] == endpoint.tokenizer.decode(prompt) + sampled["text"]
    np.testing.assert_allclose(sampled["logprobs"]["token_logprobs"], logprobs[-9:], atol=1e-4)
    alone = endpoint.post(COMPLETIONS, **asked | {"echo": False, "logprobs": 0})["choices"][0]["logprobs"]
    np.testing.assert_allclose(alone["token_logprobs"], logprobs[-9:], atol=1e-4)  # the engine's own


def test_a_prompt_can_be_scored_without_a_sample(endpoint):
    body = endpoint.post(COMPLETIONS, prompt="Anna has 12", max_tokens=0, echo=True, logprobs=1)
    choice, count = body["choices"][0], len(endpoint.tokenizer.encode("Anna has 12"))
    logprobs, _ = endpoint.score([endpoint.tokenizer.bos_id, *endpoint.tokenizer.encode("Anna has 12")])
    # The <bos> that a text gets is read, and not shown.
    np.testing.assert_allclose(choice["logprobs"]["token_logprobs"], logprobs, atol=1e-4)
    assert choice["text"] == "".join(choice["logprobs"]["tokens"]) == "Anna has 12"
    offsets = np.cumsum([0, *map(len, choice["logprobs"]["tokens"])])[:-1]
    assert choice["logprobs"]["text_offset"] == offsets.tolist()
    assert body["usage"] == {"prompt_tokens": count + 1, "completion_tokens": 0, "total_tokens": count + 1}


def test_prompts_come_as_texts_and_tokens_and_each_gets_its_samples(endpoint):
    ids = [endpoint.tokenizer.bos_id, *endpoint.tokenizer.encode("Anna")]
    settings = {"n": 3, "max_tokens": 5, "seed": 7}
    body = endpoint.post(COMPLETIONS, prompt=["Anna", "小明"], **settings)
    assert [choice["index"] for choice in body["choices"]] == list(range(6))
    assert body["usage"]["completion_tokens"] <= 30
    texts = [choice["text"] for choice in body["choices"]]
    assert len(set(texts)) > 3
    again = endpoint.post(COMPLETIONS, prompt=[ids, [5]], **settings)["choices"]
    assert [choice["text"] for choice in again[:3]] == texts[:3]  # the same prompt and seed
    other = endpoint.post(COMPLETIONS, prompt=ids, **settings | {"seed": 8})["choices"]
    assert [choice["text"] for choice in other] != texts[:3]


def test_a_stop_string_ends_a_text_before_it_and_one_that_is_never_met_does_not(endpoint):
    asked = {"prompt": "Anna has", "max_tokens": 20, "seed": 1, "logprobs": 0}
    whole = endpoint.post(COMPLETIONS, **asked, stop="never met")["choices"][0]
    assert whole["finish_reason"] == "length" and len(whole["logprobs"]["tokens"]) == 20
    assert whole == endpoint.post(COMPLETIONS, **asked)["choices"][0]
    place = len(whole["text"]) // 2
    stop = whole["text"][place : place + 2]
    cut = endpoint.post(COMPLETIONS, **asked, stop=["never met", stop])["choices"][0]
    assert cut["finish_reason"] == "stop"
    assert cut["text"] == whole["text"][: whole["text"].index(stop)]
    assert len(cut["logprobs"]["tokens"]) == len(cut["logprobs"]["text_offset"]) < 20


def test_extensions_reach_the_sampler(endpoint):
    greedy = endpoint.post(COMPLETIONS, prompt="Anna", temperature=0, max_tokens=8)["choices"][0]["text"]
    for settings in ({"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}):
        body = endpoint.post(COMPLETIONS, prompt="Anna", max_tokens=8, **settings)
        assert body["choices"][0]["text"] == greedy
    other = endpoint.post(COMPLETIONS, prompt="Anna", temperature=0, max_tokens=8, repetition_penalty=50.0)
    assert other["choices"][0]["text"] != greedy


# ------------------------------------------------------------------------------------------------- chat
def test_a_chat_reads_the_frame_of_training(endpoint):
    tokenizer = endpoint.tokenizer
    prompt = chat_prompt("How many?")
    assert encode_chat([("user", prompt[6 : -len("\n\nAssistant:")])], tokenizer) == [
        tokenizer.bos_id,
        *tokenizer.encode(prompt),
    ]
    turns = [("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Two?")]
    assert encode_chat(turns, tokenizer) == [
        tokenizer.bos_id,
        *tokenizer.encode("Be brief.\n\nUser: One?\n\nAssistant: 1"),
        tokenizer.eos_id,
        *tokenizer.encode("User: Two?\n\nAssistant:"),
    ]
    body = endpoint.post(CHAT, messages=MESSAGES, temperature=0, max_tokens=6, logprobs=True, top_logprobs=1)
    raw = endpoint.post(COMPLETIONS, prompt="User: How many?\n\nAssistant:", temperature=0, max_tokens=6)
    choice = body["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": raw["choices"][0]["text"].removeprefix(" ")}
    assert all(token["logprob"] == token["top_logprobs"][0]["logprob"] for token in choice["logprobs"]["content"])
    assert body["usage"] == raw["usage"] and body["object"] == "chat.completion"


def test_a_chat_without_a_limit_goes_to_the_end_of_the_room(endpoint):
    parts = [{"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "many?"}]}]
    body = endpoint.post(CHAT, messages=parts, seed=1, user="me", presence_penalty=0, tools=[], metadata=None)
    assert body["usage"]["completion_tokens"] == MAX_NEW_TOKENS or body["choices"][0]["finish_reason"] == "stop"


# ------------------------------------------------------------------------------------------------- streams
@pytest.mark.parametrize("seed", range(3))
def test_a_stream_adds_up_to_the_whole_answer_and_never_cuts_a_character(endpoint, seed):
    asked = {
        "prompt": ["小明有", "Anna"],
        "n": 2,
        "max_tokens": 24,
        "seed": seed,
        "stop": ["is", "apples"],
        "echo": True,
    }
    whole = endpoint.post(COMPLETIONS, **asked)
    pieces = _events(endpoint, COMPLETIONS, **asked, stream_options={"include_usage": True})
    texts, reasons = [""] * 4, [None] * 4
    for piece in pieces[:-1]:
        (choice,) = piece["choices"]
        assert reasons[choice["index"]] is None
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"]
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert reasons == [choice["finish_reason"] for choice in whole["choices"]]
    assert pieces[-1]["choices"] == [] and pieces[-1]["usage"] == whole["usage"]
    assert len({piece["id"] for piece in pieces}) == 1


def test_a_chat_streams_its_role_first_and_comes_before_it_has_ended(endpoint):
    pieces = _events(endpoint, CHAT, messages=MESSAGES, seed=2, max_tokens=30)
    whole = endpoint.post(CHAT, messages=MESSAGES, seed=2, max_tokens=30)["choices"][0]
    deltas = [piece["choices"][0]["delta"] for piece in pieces]
    assert deltas[0] == {"role": "assistant", "content": ""} and len(deltas) > 3
    assert "".join(delta.get("content", "") for delta in deltas) == whole["message"]["content"]
    assert pieces[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert {piece["object"] for piece in pieces} == {"chat.completion.chunk"}


def test_a_growing_text_holds_back_half_characters_and_begun_stop_strings(endpoint):
    assert settled("a\ufffd\ufffd", ()) == "a"
    assert settled("so the an", ["answer", "nope"]) == "so the "
    assert settled("so the answ", ["answer"]) == "so the "
    assert settled("so", ["x"]) == "so"
    tokenizer = endpoint.tokenizer
    for text in ("🙂 and ∑ of 小", "plain", ""):
        tokens = tokenizer.encode(text)
        assert "".join(token_texts(tokenizer, tokens)) == text
    half = tokenizer.encode("🙂")[:-1]
    assert "".join(token_texts(tokenizer, half)) == tokenizer.decode(half)


def test_tokens_behind_a_stop_string_are_not_told(endpoint):
    tokens = endpoint.tokenizer.encode("Anna has 12 apples")
    texts = token_texts(endpoint.tokenizer, tokens)
    cut = "".join(texts[:2]) + texts[2][:1]
    completion = Completion(0, 0, tuple(tokens), (-1.0,) * len(tokens), (1,) * len(tokens), "stop", cut)
    choice = answers.Choice([1], completion, 1, None, likeliest=False)
    told = answers.completion_choice(endpoint.tokenizer, 0, choice, logprobs=True)
    assert "".join(told["logprobs"]["tokens"]) == told["text"] == cut


# ------------------------------------------------------------------------------------------------- many clients
def test_many_clients_are_served_together_and_each_gets_what_it_would_alone(endpoint):
    def ask(seed):
        path, body = (COMPLETIONS, {"prompt": "Anna has"}) if seed % 2 else (CHAT, {"messages": MESSAGES})
        return endpoint.post(path, **body, seed=seed, max_tokens=4 + seed)["choices"]

    alone = [ask(seed) for seed in range(12)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == alone
    endpoint.wait_until_idle()


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_frees_the_slots(endpoint, stream):
    body = {"prompt": ["Anna"] * 40, "n": 20, "max_tokens": MAX_NEW_TOKENS, "stream": stream}
    with httpx.Client(base_url=endpoint.url, timeout=60) as client:
        if stream:
            with client.stream("POST", COMPLETIONS, json=body) as answer:
                lines = answer.iter_lines()  # held: its end is the connection's
                next(lines)
                assert client.get("/health").json()["open_requests"] > 0
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(COMPLETIONS, json=body, timeout=0.3)
    endpoint.wait_until_idle()  # long before 800 samples could have ended
    assert not endpoint.engine.busy
    assert endpoint.post(COMPLETIONS, prompt="Anna", max_tokens=2)["choices"]


def test_a_block_looks_for_the_samples_of_all_streams_at_once(endpoint, monkeypatch):
    asked, running = [], endpoint.engine.running
    monkeypatch.setattr(endpoint.engine, "running", lambda *ids: asked.append(ids) or running(*ids))
    _events(endpoint, COMPLETIONS, prompt=["Anna", "has", "12"], temperature=0, max_tokens=20)
    assert len(asked[0]) == 3
    assert len(asked) <= 2 * 20 / 4  # blocks of four steps, and three samples for four slots


# ------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        (COMPLETIONS, {"prompt": ""}, 400, "prompt", "invalid_value"),
        (COMPLETIONS, {"prompt": []}, 400, "prompt", "invalid_value"),
        (COMPLETIONS, {"prompt": ["a", []]}, 400, "prompt", "invalid_value"),
        (COMPLETIONS, {"prompt": [1, "a"]}, 400, "prompt", "invalid_value"),
        (COMPLETIONS, {"prompt": [10**6]}, 400, "prompt", "invalid_value"),
        (COMPLETIONS, {"prompt": [[-1]]}, 400, "prompt", "invalid_value"),
        (COMPLETIONS, {"prompt": {"a": 1}}, 400, "prompt", "invalid_value"),
        (COMPLETIONS, {}, 400, "prompt", "missing_required_parameter"),
        (COMPLETIONS, {"prompt": "a", "model": "other"}, 404, "model", "model_not_found"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": "7"}, 400, "max_tokens", "invalid_type"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": True}, 400, "max_tokens", "invalid_type"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": -1}, 400, "max_tokens", "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": MAX_NEW_TOKENS + 1}, 400, "max_tokens", "invalid_value"),
        (COMPLETIONS, {"prompt": [5] * (CONTEXT - 3), "max_tokens": 4}, 400, "prompt", "context_length_exceeded"),
        (COMPLETIONS, {"prompt": "word " * 10**5}, 400, "prompt", "context_length_exceeded"),
        (COMPLETIONS, {"prompt": "a", "temperature": -0.1}, 400, "temperature", "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "top_p": 0}, 400, "top_p", "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "top_p": 1e-46}, 400, "top_p", "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "repetition_penalty": 1e-46}, 400, "repetition_penalty", "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "repetition_penalty": 1e39}, 400, "repetition_penalty", "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "temperature": 1e-40}, 400, None, "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "n": 0}, 400, "n", "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "n": 2**70}, 400, "n", "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "stop": ["b", ""]}, 400, "stop[1]", "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "stop": 3}, 400, "stop", "invalid_type"),
        (COMPLETIONS, {"prompt": "a", "best_of": 2}, 400, "best_of", "unsupported_parameter"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"5": 1}}, 400, "logit_bias", "unsupported_parameter"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 5}, 400, "logprobs", "invalid_value"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 1, "stream": True}, 400, "logprobs", "unsupported_parameter"),
        (CHAT, {"messages": []}, 400, "messages", "invalid_value"),
        (CHAT, {"messages": [{"role": "tool", "content": ""}]}, 400, "messages[0].role", "invalid_value"),
        (CHAT, {"messages": [{"role": "user"}]}, 400, "messages[0].content", "missing_required_parameter"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content", None),
        (CHAT, {"messages": [{"role": "user", "content": "a " * 99}]}, 400, "messages", "context_length_exceeded"),
        (CHAT, {"messages": MESSAGES, "response_format": {"type": "json_object"}}, 400, "response_format", None),
        (CHAT, [1], 400, None, "invalid_type"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_requests_are_refused_in_the_shape_of_the_api(endpoint, path, body, status, param, code):
    answer = endpoint.client.post(path, json=body)
    _assert_refused(answer, status)
    error = answer.json()["error"]
    assert error["param"] == param
    assert code is None or error["code"] == code
    assert len(error["message"]) < 300


def _assert_refused(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"] and error["type"] == "invalid_request_error"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"prompt": NaN}', b"[" * 10**5, b'{"prompt": "\\ud800"}'])
def test_what_is_no_json_is_refused(endpoint, content):
    _assert_refused(endpoint.client.post(CHAT, content=content, headers={"Content-Type": "application/json"}), 400)


def test_what_is_no_endpoint_or_no_request_of_it_is_refused(endpoint):
    client = endpoint.client
    _assert_refused(client.get("/v1/nowhere"), 404)
    _assert_refused(client.get(COMPLETIONS), 405)
    _assert_refused(client.get("/v1/models/other"), 404)
    _assert_refused(client.post(COMPLETIONS, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    large = b" " * (32 * 2**20 + 1)
    _assert_refused(client.post(COMPLETIONS, content=large, headers={"Content-Type": "application/json"}), 413)
    assert client.get("/v1/models/tiny").json() == client.get("/v1/models").json()["data"][0]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 400),
        ("evil.example:8000", 400),
        ("127.0.0.1.evil.example", 400),
        ("10.0.0.1", 400),
    ],
)
def test_a_name_bound_to_this_machine_by_others_is_refused(endpoint, host, status):
    for path, body in (("/v1/models", None), ("/tokenize", {"prompt": "Anna"})):
        answer = endpoint.client.request("POST" if body else "GET", path, json=body, headers={"Host": host})
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("host", "others"),
    [("127.0.0.1", 400), ("localhost", 400), ("127.0.0.2", 400), ("0.0.0.0", 200), ("10.0.0.1", 200)],
)
def test_a_server_that_other_machines_reach_goes_by_any_name(endpoint, host, others):
    described = Checkpoint("tiny", endpoint.tokenizer, 448, CONTEXT, MAX_NEW_TOKENS)
    app = make_app(Service(Worker(endpoint.engine), described), host)
    for name, status in (("gpu7.example", others), ("127.0.0.1", 200), (host, 200)):
        client = testclient.TestClient(app, base_url=f"http://{name}:8000")  # without its lifespan: no worker starts
        assert client.get("/v1/models").status_code == status


def test_clients_without_the_tokenizer_can_use_it(endpoint):
    info = endpoint.client.get("/tokenizer_info").json()
    tokens = endpoint.post("/tokenize", prompt="Anna 小明", add_special_tokens=False)["tokens"]
    assert tokens == endpoint.tokenizer.encode("Anna 小明")
    assert endpoint.post("/tokenize", prompt="Anna 小明")["tokens"] == [endpoint.tokenizer.bos_id, *tokens]
    assert endpoint.post("/detokenize", tokens=tokens)["prompt"] == "Anna 小明"
    for role, token in (("bos_token", endpoint.tokenizer.bos_id), ("eos_token", endpoint.tokenizer.eos_id)):
        assert endpoint.post("/tokenize", prompt=info[role], add_special_tokens=False)["tokens"] == [token]


# ------------------------------------------------------------------------------------------------- the end
class _Failing:
    """An engine that fails in its third block."""

    def __init__(self, limits):
        self.limits, self.busy, self._steps = limits, False, 0

    def add(self, request):
        self.busy = True

    def step(self):
        self._steps += 1
        if self._steps > 2:
            raise RuntimeError("out of memory")
        time.sleep(0.01)
        return []

    def running(self, request_id):
        return []

    def cancel(self, request_id):
        pass

    def release(self):
        self.busy = False


def test_an_engine_that_fails_is_told_to_those_who_wait_and_to_those_who_come(endpoint, serve_app):
    failures = []
    worker = Worker(_Failing(endpoint.engine.limits), on_failure=lambda: failures.append(1))
    described = Checkpoint("tiny", endpoint.tokenizer, 448, CONTEXT, MAX_NEW_TOKENS)
    with serve_app(make_app(Service(worker, described))) as url, httpx.Client(base_url=url) as client:
        for _ in range(2):
            answer = client.post(COMPLETIONS, json={"prompt": "a"})
            assert answer.status_code == 500
            assert answer.json()["error"]["message"] == "the engine has failed: out of memory"
        assert client.get("/health").status_code == 503
        stream = client.post(COMPLETIONS, json={"prompt": "a", "stream": True}).text
        assert json.loads(stream.removeprefix("data: "))["error"]["type"] == "server_error"
    assert failures == [1]
    assert isinstance(worker.failure, RuntimeError)
