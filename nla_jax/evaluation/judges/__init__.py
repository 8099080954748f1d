"""Judges: who reads an explanation and says which of several answers it speaks of. One module each.

`judge` holds what they share; a judge that is trained gives the scores of folds that it has not seen. None of them is
believed before it has found a planted signal (`planted`).
"""
