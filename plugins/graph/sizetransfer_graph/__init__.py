"""Students on graphs: message passing on torch-geometric, and E(3)-equivariant networks on e3nn.

They come in through the hooks of :mod:`sizetransfer_graph.plugin`; torch-geometric and e3nn are imported when a student
is built, not before.
"""
