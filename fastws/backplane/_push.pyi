from collections.abc import Callable
from typing import TypeVar, final

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

_Position = TypeVar("_Position")
_Record = TypeVar("_Record")

def records_of(
    data: bytes, has_keys: bool, position: type[_Position], record: type[_Record]
) -> tuple[_Position, list[_Record]]: ...
