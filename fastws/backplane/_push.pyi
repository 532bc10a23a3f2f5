from collections.abc import Callable
from typing import final

@final
class PushParser:
    def __init__(
        self,
        receivers: dict[bytes, Callable[[bytes], object]],
        on_reply: Callable[[list[bytes | int | None] | bytes], object],
        on_failure: Callable[[bytes, Exception], object],
        most_bytes: int = ...,
    ) -> None: ...
    @property
    def pending(self) -> int: ...
    def feed(self, data: bytes) -> None: ...
