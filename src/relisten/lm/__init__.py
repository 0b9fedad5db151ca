"""The speech-text LM: vocabulary, sequences, prefix tree, forward pass, scorer, losses."""
