"""A pair behind HTTP: Neuronpedia's NLA API, the reference client's `/generate`, and readings of conversations."""
