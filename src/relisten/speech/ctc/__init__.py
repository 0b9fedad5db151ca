"""CTC: the head over encoder frames, CTC models as first pass, likelihood, beam search."""
