"""CTC: the head over encoder frames, recognisers, beam search."""
