"""Groups of rows that no two splits may share: rows whose contexts have a key in common.

Sharing is transitive, so groups are the connected parts of a graph of rows and keys. Plain prompts
that continue one another, as the turns of a conversation written as text do, are joined as well.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence

from w2s_ray.data.contexts import Context


class Joined:
    """Sets of items, joined pair by pair (union-find with path halving)."""

    def __init__(self) -> None:
        self._parents: dict[Hashable, Hashable] = {}

    def root(self, item: Hashable) -> Hashable:
        """The item that stands for all those ``item`` is joined with."""
        parents = self._parents
        parents.setdefault(item, item)
        while (parent := parents[item]) != item:
            parents[item] = item = parents[parent]
        return item

    def join(self, first: Hashable, second: Hashable) -> None:
        self._parents[self.root(first)] = self.root(second)


def group_names(contexts: Sequence[Context]) -> list[str]:
    """The name of the group of each row.

    A group that has one context only has the name of that context, whatever other rows there are;
    of several, the lowest one. The order of the rows changes nothing.
    """
    joined = Joined()
    for context in contexts:
        for key in context.keys:
            joined.join(context.keys[0], key)
    for context, beginning in continuations(contexts):
        joined.join(context.keys[0], beginning.keys[0])
    lowest: dict[Hashable, str] = {}
    roots = [joined.root(context.keys[0]) for context in contexts]
    for root, context in zip(roots, contexts, strict=True):
        lowest[root] = min(lowest.get(root, context.name), context.name)
    return [lowest[root] for root in roots]


def continuations(contexts: Iterable[Context]) -> Iterator[tuple[Context, Context]]:
    """Pairs of a context whose prompt may continue another one, and the one that it continues.

    A prompt continues another if it begins with it, and a word ends there. Of several that it
    begins with, the longest is enough if that one may continue the others.
    """
    by_prompt: dict[str, Context] = {}
    for context in contexts:
        if context.prompt is not None and (context.may_continue or context.prompt not in by_prompt):
            by_prompt[context.prompt] = context
    beginnings: list[str] = []  # of the current prompt: sorted, they all come before it
    for prompt in sorted(by_prompt):
        while beginnings and not prompt.startswith(beginnings[-1]):
            beginnings.pop()
        for beginning in reversed(beginnings if by_prompt[prompt].may_continue else []):
            if _ends_a_word(prompt, len(beginning)):
                yield by_prompt[prompt], by_prompt[beginning]
                if by_prompt[beginning].may_continue:
                    break
        beginnings.append(prompt)


def _ends_a_word(text: str, end: int) -> bool:
    return not (text[end - 1].isalnum() and text[end].isalnum())
