"""One prompt under several policies, as it is decoded: what the demo shows."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from z1lib.engines.base import Decoded, Engine
from z1lib.inference.decode import Prompt, complete_one, encode_templated, make_request
from z1lib.records import Completion
from z1lib.window import Policy


def stream(engine: Engine, prompt: Prompt, policies: list[Policy]) -> Iterator[list[Completion]]:
    """One prompt under several policies, greedy, as it is decoded: after each step the completions so far.

    The last list holds the whole completions. Decoding stops when the iterator is closed, and has stopped when that
    returns: the engine is free for the next.
    """
    ids = encode_templated(engine, prompt)
    news: queue.SimpleQueue = queue.SimpleQueue()
    closed = threading.Event()

    def watcher(index: int) -> Callable[[list[int]], None]:
        def watch(so_far: list[int]) -> None:
            if closed.is_set():
                raise InterruptedError("nobody reads any more")
            news.put((index, Decoded(so_far, False)))

        return watch

    requests = [replace(make_request(engine, ids, [policy]), watch=watcher(i)) for i, policy in enumerate(policies)]

    def decode() -> None:
        try:
            for index, [decoded] in engine.decode(requests):
                news.put((index, decoded))
            news.put(None)
        except BaseException as error:
            news.put(error)

    thread = threading.Thread(target=decode, daemon=True)
    thread.start()
    state = [Decoded([], False) for _ in requests]
    try:
        while (new := news.get()) is not None:
            if isinstance(new, BaseException):
                raise new
            state[new[0]] = new[1]
            yield [complete_one(engine, r, r.policy, decoded, "0") for r, decoded in zip(requests, state)]
    finally:
        closed.set()
        thread.join()
