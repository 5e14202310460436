"""What refined coverage knows of every child of an image's tree, kept so that any threshold can be tried quickly.

Letters: K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.chooser import Candidate, Chooser
from model.tree import Node, Tree

__all__ = ["Signal", "Wants", "spent"]

Signal = list[NDArray[np.float32]]
"""(rows, columns) for each level."""


@dataclass(frozen=True, eq=False)
class Wants:
    """For every level but the roots': what each child needs; and, where that is learnt from, how it looks (rows,
    columns, K) and how its own prediction would change what was there."""

    needs: Signal
    looks: Signal | None = None
    changes: Signal | None = None

    def candidate(self, tree: Tree, child: Node) -> Candidate:
        level, row, column = child.level, child.row, child.column
        need = float(self.needs[level][row, column])
        look = None if self.looks is None else self.looks[level][row, column]
        return Candidate(child, need, need / tree.scales[level + 1], look)


def spent(tree: Tree, wants: Wants, threshold: float) -> int:
    """The forwards that refinement takes, inner nodes counted, without putting anything together."""
    rows, columns = tree.grid(tree.top)
    return sum(
        _under(tree, wants, Node(tree.top, row, column), threshold) for row in range(rows) for column in range(columns)
    )


def _under(tree: Tree, wants: Wants, root: Node, threshold: float) -> int:
    total, run = 1, [root]
    while run and run[0].level:
        candidates = [wants.candidate(tree, child) for node in run for child in tree.children(node)]
        chooser = Chooser(candidates, threshold)
        run = []
        while asked := chooser.next():
            for index in asked:
                node = candidates[index].node
                if wants.changes is not None:
                    chooser.observe(index, float(wants.changes[node.level][node.row, node.column]))
                run.append(node)
        total += len(run)
    return total
