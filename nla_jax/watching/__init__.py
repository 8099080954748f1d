"""Many transcripts under a cost bound: a first pass without words, a few explanations of each, rates and alerts."""
