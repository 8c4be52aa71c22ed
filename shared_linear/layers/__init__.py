"""The layers: tiling and its kernels, the nodes of the graph, the links."""
