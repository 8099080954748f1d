"""Controls: the explanation is of another vector, or there is none. One module each."""
