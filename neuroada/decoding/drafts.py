"""Draft the tokens that a model is likely to write next, from its earlier completions on the same benchmark."""

from collections.abc import Iterable, Sequence

LEAST_CHANCE = 0.5
"""A draft continues as long as the whole draft is more likely right than wrong. A wrongly drafted token costs as much
compute as a generated one, so on a CPU guessing among four answers gains nothing."""
_DEEPEST = 64


class _Node:
    __slots__ = ("count", "next")

    def __init__(self) -> None:
        self.count = 0
        self.next: dict[int, _Node] = {}


class Drafts:
    """A tree of the completions so far.

    Args:
        opening: How a completion is expected to begin. It counts as one seen completion, so it is soon dropped if the
            model never writes it.
        ends: Tokens that end a completion.
    """

    def __init__(self, opening: Iterable[int], ends: Iterable[int]) -> None:
        self._ends = frozenset(ends)
        self._root = _Node()
        self.learn(opening)

    def learn(self, completion: Iterable[int]) -> None:
        """Add a completion, including its end token."""
        node = self._root
        node.count += 1
        for depth, token in enumerate(completion):
            if depth == _DEEPEST:
                return
            node = node.next.setdefault(token, _Node())
            node.count += 1

    def after(self, written: Sequence[int], most: int) -> list[int]:
        """At most ``most`` tokens that are likely to follow, without the end token; often none."""
        node: _Node | None = self._root
        for token in written:
            node = node.next.get(token) if node is not None else None
        draft: list[int] = []
        chance = 1.0
        while node is not None and node.next and len(draft) < most:
            token, likeliest = max(node.next.items(), key=lambda item: item[1].count)
            chance *= likeliest.count / node.count
            if token in self._ends or chance < LEAST_CHANCE:
                break
            draft.append(token)
            node = likeliest
        return draft
