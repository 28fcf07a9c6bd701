"""Graphs that networkx ships: the karate club, and every graph of up to seven nodes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._checked import DataError, check, fingerprint, installed, integers, reals

KARATE_SHA256 = "e9bd6eeedb6b5d68443e71548e28616a95f1064a6ec4d240a368c6d0eaede812"
ATLAS_SHA256 = "a68e2c584e5d314046039af76d2c08a72b8df9d15a1ddaf683c96c1879374357"

#: Number of graphs in the atlas, the empty one among them, and the largest number of nodes.
ATLAS, LARGEST = 1253, 7

#: The four communities that kipf2017semi classifies: a clustering by modularity (0.4156; the largest possible is 0.4198).
COMMUNITIES = (1, 1, 1, 1, 3, 3, 3, 1, 0, 1, 3, 1, 1, 1, 0, 0, 3, 1, 0, 1, 0, 1, 0, 0, 2, 2, 0, 0, 2, 0, 0, 2, 0, 0)


class Karate(NamedTuple):
    """The karate club: a graph of 34 members, whom they followed, and their communities.

    Attributes
    ----------
    adjacency : ``(34, 34)``, symmetric, 1 for each of the 78 friendships, zero diagonal.
    factions : ``(34,)``, 0 for the members who stayed with Mr. Hi, 1 for those who followed the officer.
    communities : ``(34,)``, the four communities of a clustering by modularity.
    train : ``(34,)``, True for the first member of each community, whose label may be learned from; the rest test.

    >>> Karate._fields
    ('adjacency', 'factions', 'communities', 'train')

    """

    adjacency: Tensor
    factions: Tensor
    communities: Tensor
    train: Tensor


def karate() -> Karate:
    """Zachary's karate club: friendships of 34 members, and the two factions that it split into.

    Returns
    -------
    A `Karate`; the adjacency in torch's default dtype, all on its default device.

    Raises
    ------
    DataError : networkx is missing, or ships another graph.

    Licence: published by the author without one; BSD-3-Clause as part of networkx. Source: zachary1977information;
    kipf2017semi for the communities and the four labelled members.

    >>> club = karate()
    >>> int(club.adjacency.sum()) // 2, int(club.factions.sum()), club.train.nonzero().flatten().tolist()
    (78, 17, [0, 4, 8, 24])

    """
    networkx = installed("networkx", "the friendships of the karate club", "networkx")
    graph = networkx.karate_club_graph()
    adjacency = networkx.to_numpy_array(graph, nodelist=range(len(graph)), weight=None)
    factions = [int(graph.nodes[member]["club"] != "Mr. Hi") for member in range(len(graph))]
    check("karate", fingerprint(adjacency, factions, COMMUNITIES), KARATE_SHA256)
    first = [member in {COMMUNITIES.index(community) for community in COMMUNITIES} for member in range(len(graph))]
    return Karate(reals(adjacency), integers(factions), integers(COMMUNITIES), integers(first).to(torch.bool))


def atlas(nodes: int | None = None) -> list[Tensor]:
    """Every graph of up to seven nodes, once up to isomorphism, in the order of the atlas.

    There is nothing to split: a study that learns from these graphs says which ones it holds out.

    Parameters
    ----------
    nodes : only the graphs of so many nodes, 0 to 7; all 1253 by default, so that ``atlas()[k]`` is the atlas's G``k``.

    Returns
    -------
    Adjacency matrices ``(n, n)`` of zeros and ones in torch's default dtype and on its default device; the first is empty.

    Raises
    ------
    DataError : networkx is missing or ships other graphs, or ``nodes`` is out of range.

    Licence: BSD-3-Clause, as part of networkx. Source: read1998atlas.

    >>> [len(atlas(nodes)) for nodes in range(8)]
    [1, 1, 2, 4, 11, 34, 156, 1044]

    """
    if nodes is not None and (isinstance(nodes, bool) or nodes not in range(LARGEST + 1)):
        raise DataError(f"nodes={nodes!r} is not in the atlas: ask for an integer from 0 to {LARGEST}, or for all.")
    networkx = installed("networkx", "the graphs of the atlas", "networkx")
    matrices = [
        networkx.to_numpy_array(graph, nodelist=sorted(graph), weight=None) if len(graph) else np.zeros((0, 0))
        for graph in networkx.graph_atlas_g()
    ]
    check("atlas", fingerprint(*matrices), ATLAS_SHA256)
    return [reals(matrix) for matrix in matrices if nodes is None or len(matrix) == nodes]
