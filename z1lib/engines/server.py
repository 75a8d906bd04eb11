"""The server engine: an OpenAI-compatible endpoint that takes prompts as token ids and returns token ids.

Where the server follows policies itself (vLLM with this package installed beside it, see engines/vllm_plugin.py) a
completion is one request. Elsewhere it is decoded in pieces, by token ids: up to the window, then behind the hint; a
policy that puts tokens in the place of one costs one request more each time. Which of the two it is, is tried out once,
when the engine is made. Every setting that moves the distribution is stated (`base.sampling_settings`).

Requests that fail on the way (429, 5xx, no connection) are sent again, later and later or when the server says; what
has arrived of a broken stream is kept. Nothing is waited for without end, and an id outside the vocabulary is an error.
The weights cannot be hashed from here: `model` must be what the server serves.
"""

import asyncio
import json
import queue
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from email.utils import parsedate_to_datetime

import httpx
import openai
from transformers import AutoConfig, AutoTokenizer

from z1lib.cost import Cost
from z1lib.engines.base import (
    Decoded,
    EngineUnavailable,
    Question,
    Request,
    Track,
    check_prompts,
    check_questions,
    extend_chosen,
    extend_forced,
    policy_arguments,
    sampling_settings,
)
from z1lib.engines.serving import serve
from z1lib.models import end_token_ids, fingerprint
from z1lib.window import Policy, ShiftedWindow, Step, Truncation, ask, check_count

START_S = 30  # for each of the two questions that are asked before decoding
COMPLETION_S = 3600  # for one whole answer, which is silent until its end; sending it again included
TOKEN_S = 600  # from one token of a stream to the next
LONGEST_WAIT_S = 3600  # that a server may ask for (Retry-After)
CLIENT_WAITS_S = 120  # that openai's client itself waits when asked to; it takes a longer wait for a refusal
EMPTY_ANSWERS = 5  # in a row, before the server is given up
FORBIDDEN = -100  # added to a logit, which OpenAI's API takes for a ban
TRIES_EACH = 2  # more, of several servers, before the next one is asked


class ServerError(EngineUnavailable):
    """The endpoint cannot be used; the message names it and says what it answered."""


class ServerEngine:
    """Decodes through HTTP, at most `concurrency` prompts at once (the branches of a prompt come on top).

    `model` is the folder or Hub id of the served weights, for tokenizer and end tokens. Of several `base_url` each
    prompt has its own (whose cache knows it), and the next ones in turn where that is out of reach. With
    `serve_options` (see engines/serving.py) it starts `vllm serve` itself, and stops it when the engine is let go. A
    request is sent again up to `retries` times, at most 8 s apart if the server does not say when. `one_request` False
    decodes in pieces even where the server follows policies.
    """

    def __init__(
        self,
        model: str,
        dtype: str | None = None,
        base_url: str | list[str] = "http://127.0.0.1:8000/v1",
        serve_options: dict | None = None,
        api_key: str = "none",
        concurrency: int = 64,
        retries: int = 60,
        one_request: bool = True,
    ):
        check_count("concurrency", concurrency)
        if dtype is not None:
            raise ValueError("the server has chosen its dtype: start it with --dtype")
        if serve_options is not None:
            base_url, stop = serve(model, **serve_options)
            self.stop = weakref.finalize(self, stop)
        self.base_urls, self.concurrency = [base_url] if isinstance(base_url, str) else list(base_url), concurrency
        self.retries, self.options = retries, {"api_key": api_key, "timeout": httpx.Timeout(COMPLETION_S, connect=10)}
        self.options["max_retries"] = retries if len(self.base_urls) == 1 else min(retries, TRIES_EACH)
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model_name, self.fingerprint = str(model), fingerprint(model)
        # null: what it has is unknown
        versions = " ".join(sorted({ask_version(url) for url in self.base_urls}))
        self.arithmetic = f"server {versions} {json.dumps(serve_options, sort_keys=True)}"
        self.end_ids = end_token_ids(model, self.tokenizer)
        config = AutoConfig.from_pretrained(model).get_text_config()
        self.vocabulary = max(config.vocab_size, len(self.tokenizer))
        served = [self._find_served(url) for url in self.base_urls]
        if len(names := {one.id for one in served}) > 1:
            raise ServerError(f"{', '.join(self.base_urls)} serve different models: {', '.join(sorted(names))}")
        self.served = served[0].id
        self.context_length = min(
            getattr(one, "max_model_len", None) or config.max_position_embeddings for one in served
        )
        self.follows_policies = one_request and all(self._tries_policies(url) for url in self.base_urls)

    def decode(self, requests: list[Request]) -> Iterator[tuple[int, list[Decoded]]]:
        """See `Engine.decode`. Raises ServerError when the endpoint refuses a request or stays out of reach."""
        done: queue.SimpleQueue = queue.SimpleQueue()
        session = _Session(self)
        started, running = 0, {}
        with _loop() as loop:
            try:
                while started < len(requests) or running:
                    check_prompts(requests[started:], self, first=started)
                    for index in range(started, len(requests)):
                        running[index] = asyncio.run_coroutine_threadsafe(session.complete(requests[index]), loop)
                        running[index].add_done_callback(lambda future, index=index: done.put(index))
                    started = len(requests)
                    index = done.get()
                    yield index, running.pop(index).result()
            finally:
                asyncio.run_coroutine_threadsafe(session.close(), loop).result()

    def score(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `Engine.score`. Raises ServerError where the server does not give the log-probabilities of named ids."""
        check_questions(questions, self)
        return self._ask_all(questions, _Session.score)

    def reread(self, answers: Sequence[Question]) -> list[list[float]]:
        """See `Engine.reread`. Raises ServerError where the server does not give log-probabilities of a prompt."""
        check_questions(answers, self, answered=True)
        return self._ask_all(answers, _Session.reread)

    def _ask_all(self, questions: Sequence[Question], how: Callable) -> list[list[float]]:
        with _loop() as loop:
            session = _Session(self)
            try:
                asked = [asyncio.run_coroutine_threadsafe(how(session, *one), loop) for one in questions]
                return [one.result() for one in asked]
            finally:
                asyncio.run_coroutine_threadsafe(session.close(), loop).result()

    def body(self, request: Request, policy: Policy, ids: list[int], stream: bool, put: Sequence[int] = ()) -> dict:
        """One HTTP request that goes on behind `ids`, as far as the policy lets the server go alone."""
        limit, step, settings = policy.max_tokens, Step(), sampling_settings(request, len(ids))
        if not self.follows_policies:
            limit = policy.window if len(ids) < policy.window else policy.max_tokens
            step = ask(policy, ids, put)
            settings["logit_bias"] = {str(i): FORBIDDEN for i in step.forbid}
        extra = {"return_token_ids": True, "stop_token_ids": sorted({*self.end_ids, *step.of})}
        if self.follows_policies:
            extra["vllm_xargs"] = policy_arguments(policy, len(ids), put, self.end_ids)
        return {
            "model": self.served,
            "prompt": request.prompt_ids + ids,
            "max_tokens": limit - len(ids),
            "stream": stream,
            "extra_body": {**extra, **settings},
        }

    def _find_served(self, url: str):
        models = getattr(self._ask(url, lambda client: client.models.list()), "data", None) or []
        names = [model.id for model in models]
        if len(models) != 1 and self.model_name not in names:
            raise ServerError(f"{url} serves {names}, not {self.model_name!r}")
        return models[names.index(self.model_name) if self.model_name in names else 0]

    def _tries_policies(self, url: str) -> bool:
        """Whether the server forces a hint when asked to: whether it has our processor."""
        ids = tuple(self.tokenizer("The window is shut.", add_special_tokens=False)["input_ids"])
        self.follows_policies = True
        policy = ShiftedWindow(0, max_answer_tokens=1, hint_ids=ids)
        body = {**self.body(Request([ids[0]], policy), policy, [], stream=False), "max_tokens": len(ids)}
        try:
            return self.read_ids(self._ask(url, lambda client: client.completions.create(**body)), url) == list(ids)
        except ServerError as error:
            if isinstance(error.__cause__, openai.BadRequestError):  # it does not know the argument
                return False
            raise

    def _ask(self, url: str, call: Callable[[openai.AsyncOpenAI], Awaitable]):
        """The answer of a server to one call outside of decoding."""

        async def ask():
            async with openai.AsyncOpenAI(base_url=url, **self.options) as client:
                return await asyncio.wait_for(call(client), START_S)

        try:
            with _loop() as loop:
                return asyncio.run_coroutine_threadsafe(ask(), loop).result()
        except TimeoutError as error:
            raise ServerError(f"{url} gave no answer in {START_S} s: does the server run there?") from error
        except (openai.OpenAIError, ValueError, AttributeError) as error:
            raise explain(error, url) from error

    def read_ids(self, answer, url: str) -> list[int]:
        """The generated ids of an answer, or of a piece of a stream."""
        choices = getattr(answer, "choices", None)
        ids = getattr(choices[0], "token_ids", None) if isinstance(choices, list) and choices else None
        if not isinstance(ids, list):
            raise ServerError(f"{url} answered without token ids (vLLM gives them): {str(answer)[:200]!r}")
        for token in ids:
            if type(token) is not int or not 0 <= token < self.vocabulary:
                raise ServerError(
                    f"{url} answered with {str(token)[:40]!r}, which is none of the {self.vocabulary:,} "
                    f"tokens of {self.model_name}: {str(answer)[:200]!r}"
                )
        return ids


class _Session:
    """The HTTP connections of one call of `decode`, and what goes over them."""

    def __init__(self, engine: ServerEngine):
        self.engine = engine
        self.clients = [(url, openai.AsyncOpenAI(base_url=url, **engine.options)) for url in engine.base_urls]
        self.slots = asyncio.Semaphore(engine.concurrency)

    async def close(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for _, client in self.clients:
            await client.close()

    async def complete(self, request: Request) -> list[Decoded]:
        """A request's own completion and its branches, each begun as soon as the request has passed its window."""
        track = Track(request)
        branches: list[asyncio.Task] = []

        async def finish(number: int, policy: Policy, ids: list[int], put: list[int]) -> None:
            track.done[number] = await self._follow(request, policy, ids, put)

        def grow(ids: list[int], put: list[int], ended: bool) -> None:
            branches.extend(asyncio.create_task(finish(*branch)) for branch in track.part(ids, put, ended))

        async with self.slots:
            track.done[0] = await self._follow(request, request.policy, *request.begin(), grow)
            await asyncio.gather(*branches)
        return track.collect()

    async def score(self, prefix: Sequence[int], asked: Sequence[int]) -> list[float]:
        """The log-probabilities of named ids behind a prefix."""
        named = {"logprob_token_ids": sorted(set(asked)), "return_tokens_as_token_ids": True}
        url, answer = await self._read(prefix, {"logprobs": 1}, named)
        try:
            found = answer.choices[0].logprobs.top_logprobs[0]
            return [found[f"token_id:{i}"] for i in asked]
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ServerError(f"{url} gives no log-probabilities of named ids (vLLM's logprob_token_ids)") from error

    async def reread(self, prefix: Sequence[int], ids: Sequence[int]) -> list[float]:
        """The log-probability of each of these ids, one after the other behind a prefix."""
        url, answer = await self._read([*prefix, *ids], {}, {"prompt_logprobs": 0})
        try:
            found = answer.choices[0].prompt_logprobs[len(prefix) :]
            return [at[str(i)]["logprob"] for i, at in zip(ids, found, strict=True)]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ServerError(f"{url} gives no log-probabilities of a prompt (vLLM's prompt_logprobs)") from error

    async def _read(self, ids: Sequence[int], asked: dict, extra: dict):
        """The server that read these ids, and its answer; `extra` are vLLM's own arguments."""
        request = Request(list(ids), Truncation(1))
        body = self.engine.body(request, request.policy, [], stream=False) | asked
        async with self.slots:
            return await self._send(body | {"extra_body": body["extra_body"] | extra}, 0)

    async def _follow(
        self, request: Request, policy: Policy, ids: list[int], put: list[int], grow: Callable | None = None
    ) -> Decoded:
        """Decode behind `ids` under the policy; `grow(ids, put, ended)` is told of every new id."""
        stream, empty = bool(grow and (request.branches or request.watch)), 0
        costs: list[Cost] = []
        while True:
            if stream:
                grow(ids, put, False)
            extend_forced(policy, ids, put)
            if policy.finished(ids):
                return Decoded(ids, False, tuple(put), sum(costs, Cost()))
            before = len(ids)
            async with aclosing(self._receive(request, policy, ids, put, costs, stream)) as tokens:
                async for token in tokens:
                    step = ask(policy, ids, put)
                    if step.force not in (None, token):  # the server does not know: what follows is in vain
                        break
                    own = extend_chosen(step, ids, put, token)
                    ended = own and token in self.engine.end_ids
                    if stream:
                        grow(ids, put, ended)
                    if ended or policy.finished(ids):
                        return Decoded(ids, ended, tuple(put), sum(costs, Cost()))
                    if not own:
                        break
            empty = empty + 1 if len(ids) == before else 0
            if empty:
                await self._wait(empty)

    async def _wait(self, empty: int) -> None:
        if empty >= EMPTY_ANSWERS:
            raise ServerError(f"{', '.join(self.engine.base_urls)} answered {empty} times in a row without a token")
        await asyncio.sleep(2**empty)

    async def _receive(
        self, request: Request, policy: Policy, ids: list[int], put: list[int], costs: list[Cost], stream: bool
    ) -> AsyncIterator[int]:
        """The ids of one HTTP request; those of a stream that breaks are fewer, and the caller goes on behind them.

        Appends to `costs` what was sent and received; what the server reads for it is not known.
        """
        engine = self.engine
        body = engine.body(request, policy, ids, stream, put)
        url, answer = await self._send(body, home=int(request.prompt_hash[:8], 16))
        costs.append(Cost(len(body["prompt"]), attended=None, scored=None))
        async with aclosing(self._pieces(answer, url) if stream else self._whole(answer, url)) as pieces:
            async for fresh in pieces:
                costs.append(Cost(decoded=len(fresh), depth=len(fresh)))
                for token in fresh:
                    yield token

    async def _whole(self, answer, url: str) -> AsyncIterator[list[int]]:
        yield self.engine.read_ids(answer, url)

    async def _pieces(self, answer, url: str) -> AsyncIterator[list[int]]:
        """The ids of a stream as they come, until it ends or breaks."""
        pieces = aiter(answer)
        try:
            while fresh := await self._next_ids(pieces, url):
                yield fresh
        except (openai.APIError, httpx.TransportError):
            return
        except ValueError as error:  # a line that is no JSON
            raise explain(error, url) from error
        finally:
            await answer.close()

    async def _send(self, body: dict, home: int):
        """The server that answered one request, and its answer.

        It is sent again when the server has asked for a long wait, and to the next server where one fails.
        """
        for attempt in range(self.engine.retries + 1):
            url, client = self.clients[(home + attempt) % len(self.clients)]
            sent = client.completions.create(**body)
            try:
                return url, await asyncio.wait_for(sent, COMPLETION_S)
            except TimeoutError as error:
                raise ServerError(f"{url} gave no whole answer in {COMPLETION_S} s") from error
            except (openai.OpenAIError, ValueError) as error:
                refused, wait = explain(error, url), read_wait(error)
                if wait > LONGEST_WAIT_S:
                    raise ServerError(f"{refused}; to wait {wait:,.0f} s, more than {LONGEST_WAIT_S}") from error
                fails = isinstance(error, openai.APIConnectionError | openai.InternalServerError)
                if not wait > CLIENT_WAITS_S and not (fails and len(self.clients) > 1):
                    raise refused from error
            await asyncio.sleep(wait)
        raise refused

    async def _next_ids(self, pieces: AsyncIterator, url: str) -> list[int]:
        """The ids of the next piece of a stream that has some; none at its end."""

        async def find() -> list[int]:
            async for piece in pieces:
                if getattr(piece, "choices", None) and (fresh := self.engine.read_ids(piece, url)):
                    return fresh
            return []

        try:
            return await asyncio.wait_for(find(), TOKEN_S)
        except TimeoutError as error:
            raise ServerError(f"{url} sent no token in {TOKEN_S} s") from error


def explain(error: Exception, url: str) -> ServerError:
    what = "cannot be reached" if isinstance(error, openai.APIConnectionError) else "answered"
    return ServerError(f"{url} {what}: {error or type(error).__name__}")


def ask_version(url: str) -> str:
    """What a server says it is; another version may decode otherwise. vLLM tells it, others need not."""
    try:
        answer = httpx.get(url.removesuffix("/v1") + "/version", timeout=START_S).json()
    except (httpx.HTTPError, ValueError):
        return "of an unknown version"
    return f"vllm {answer['version']}" if isinstance(answer, dict) and "version" in answer else "of an unknown kind"


def read_wait(error: Exception) -> float:
    """The seconds that an answer asks to wait, in the header Retry-After (RFC 9110, 10.2.3); 0 if it asks for none."""
    header = getattr(getattr(error, "response", None), "headers", {}).get("retry-after", "")
    try:
        return float(header)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(header).timestamp() - time.time()
    except ValueError:
        return 0.0


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own: a notebook has one already, where it cannot be waited for."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
