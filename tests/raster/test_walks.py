"""Chains in order, against following them one step at a time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raster.walks import walks


@st.composite
def links(draw: st.DrawFn) -> list[int]:
    """A permutation, cut open at some nodes."""
    count = draw(st.integers(1, 40))
    following = draw(st.permutations(range(count)))
    ends = draw(st.sets(st.integers(0, count - 1)))
    return [node if node in ends else after for node, after in enumerate(following)]


@given(links())
def test_chains_are_those_of_following_the_links(following: list[int]) -> None:
    found = walks(np.array(following))
    assert sorted(found.order.tolist()) == list(range(len(following)))
    led_to = {after for node, after in enumerate(following) if after != node}
    for chain, (start, end) in enumerate(zip(found.starts[:-1], found.starts[1:], strict=True)):
        nodes = found.order[start:end].tolist()
        assert {int(k) for k in found.chain_of[nodes]} == {chain}
        assert [following[node] for node in nodes[:-1]] == nodes[1:]
        if found.closed[chain]:
            assert following[nodes[-1]] == nodes[0] == min(nodes)
        else:
            assert following[nodes[-1]] == nodes[-1]
            assert nodes[0] not in led_to
