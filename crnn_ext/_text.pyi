from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_Ints: TypeAlias = npt.NDArray[np.int32]
_Floats: TypeAlias = npt.NDArray[np.float32]
Automaton: TypeAlias = tuple[_Ints, _Ints, _Ints, _Floats, _Ints, _Floats, _Floats, int]
WordTrie: TypeAlias = tuple[_Ints, _Ints, _Ints, _Ints]

class Charset:
    def __init__(self, characters: str, blank: int) -> None: ...
    def encode(self, texts: tuple[str, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]: ...
    def decode(
        self, tokens: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> tuple[list[str], int | None]: ...

class NGrams:
    @property
    def order(self) -> int: ...
    @property
    def words(self) -> list[str]: ...
    def automaton(self, word_of_symbol: Sequence[int]) -> Automaton: ...

class ArpaReader:
    def __init__(self) -> None: ...
    @property
    def lines(self) -> int: ...
    def read(self, chunk: bytes) -> None: ...
    def finish(self) -> NGrams: ...

def word_trie(
    tokens: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    words: npt.NDArray[np.int64],
    separators: Sequence[int],
) -> WordTrie: ...
def hotword_automaton(
    words: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], separators: Sequence[int]
) -> Automaton: ...
